// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fxamacker/cbor/v2"
	"github.com/podmeter/podmeter/datapath"
	"github.com/podmeter/podmeter/flows"
	"github.com/podmeter/podmeter/internal/owned"
)

// A checkpoint file is a header of 24 bytes and a body in CBOR (RFC 8949). The
// header is the magic, and in big endian the version of the body's layout, the
// body's CRC-32C and its length.
const (
	checkpointName    = "checkpoint"
	uplinksName       = "checkpoint-uplinks"
	checkpointMagic   = "podmeter"
	checkpointVersion = 1
	checkpointHeader  = len(checkpointMagic) + 4 + 4 + 8
	// checkpointLimit bounds what is read of a file that may be anything, or an earlier
	// build's, which had no bound on labels. It is read whole: more would not fit into the
	// memory of an agent with the limits of series that are usual, whose checkpoint has
	// some MB.
	checkpointLimit = 256 << 20
	// elementLimit bounds the elements of one list in it: more than an agent has series. A list of
	// nothing takes a byte an element, and some hundred in memory.
	elementLimit = 1 << 20
	// rejectedSuffix names a checkpoint that was set aside.
	rejectedSuffix = ".rejected"
	// nextSuffix names one that is being written.
	nextSuffix = ".next"
	// behindSuffix names the last one when a later one could not be written: others have seen
	// more since.
	behindSuffix = ".behind"
)

// errCheckpoint is returned for a file that is no checkpoint of this build.
var errCheckpoint = errors.New("not a usable checkpoint")

// checkpoint is what an agent leaves for the next one: of its pods, or in a file of
// its own of its uplinks, as each has epochs of its own.
type checkpoint struct {
	Datapath *datapath.SavedState
	Flows    *flows.State       `cbor:",omitempty"`
	Uplinks  *flows.UplinkState `cbor:",omitempty"`
}

// checkpoints are one checkpoint file of a state directory.
type checkpoints struct {
	path string
	mode cbor.UserBufferEncMode
	// behind is whether there is, or may be, one of that name.
	behind bool
	// body is kept from one checkpoint to the next.
	body bytes.Buffer
}

func newCheckpoints(stateDir, name string) (*checkpoints, error) {
	mode, err := cbor.EncOptions{Time: cbor.TimeUnixMicro}.UserBufferEncMode()
	if err != nil {
		return nil, fmt.Errorf("set up checkpoints: %w", err)
	}
	return &checkpoints{path: filepath.Join(stateDir, name), mode: mode}, nil
}

// write replaces the checkpoint. It is not synced to disk: a kill leaves what was
// written, and after a crash of the kernel its maps are gone as well.
func (c *checkpoints) write(content *checkpoint) error {
	c.body.Reset()
	c.body.Write(make([]byte, checkpointHeader))
	if err := c.mode.MarshalToBuffer(content, &c.body); err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	file := c.body.Bytes()
	putHeader(file)
	directory, err := owned.Open(filepath.Dir(c.path), 0o700)
	if err != nil {
		return fmt.Errorf("open state directory: %w", err)
	}
	defer directory.Close() // the file has been closed
	name := filepath.Base(c.path)
	if err := directory.Write(name, name+nextSuffix, file, 0o600); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func putHeader(file []byte) {
	body := file[checkpointHeader:]
	copy(file, checkpointMagic)
	rest := file[len(checkpointMagic):]
	binary.BigEndian.PutUint32(rest, checkpointVersion)
	binary.BigEndian.PutUint32(rest[4:], crc32.Checksum(body, castagnoli))
	binary.BigEndian.PutUint64(rest[8:], uint64(len(body)))
}

// read returns the checkpoint, nil if there is none. The error is errCheckpoint
// for a file that is torn, truncated, older, newer or something else.
func (c *checkpoints) read() (*checkpoint, error) {
	c.behind = true
	content, err := c.readOne("")
	if content != nil || err != nil {
		return content, err
	}
	if content, err = c.readOne(behindSuffix); content != nil {
		content.Datapath.Behind = true
	}
	return content, err
}

func (c *checkpoints) readOne(suffix string) (*checkpoint, error) {
	path := c.path + suffix
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	directory, err := owned.Open(filepath.Dir(path), 0o700)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	defer directory.Close()
	file, err := directory.Read(filepath.Base(path), checkpointLimit)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errCheckpoint, path, err)
	}
	content, err := decodeCheckpoint(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errCheckpoint, path, err)
	}
	return content, nil
}

func decodeCheckpoint(file []byte) (*checkpoint, error) {
	if len(file) < checkpointHeader || string(file[:len(checkpointMagic)]) != checkpointMagic {
		return nil, errors.New("it does not begin as one")
	}
	rest, body := file[len(checkpointMagic):], file[checkpointHeader:]
	if version := binary.BigEndian.Uint32(rest); version != checkpointVersion {
		return nil, fmt.Errorf("its layout is version %d, and this build has %d", version, checkpointVersion)
	}
	if length := binary.BigEndian.Uint64(rest[8:]); length != uint64(len(body)) {
		return nil, fmt.Errorf("it has %d bytes, and should have %d", len(body), length)
	}
	if binary.BigEndian.Uint32(rest[4:]) != crc32.Checksum(body, castagnoli) {
		return nil, errors.New("its checksum is wrong")
	}
	// The name of an interface is any bytes but a few, and need not be UTF-8.
	mode, err := cbor.DecOptions{
		UTF8: cbor.UTF8DecodeInvalid, MaxArrayElements: elementLimit, MaxMapPairs: elementLimit,
	}.DecMode()
	if err != nil {
		return nil, fmt.Errorf("set up decoding: %w", err)
	}
	content := new(checkpoint)
	if err := mode.Unmarshal(body, content); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if content.Datapath == nil || (content.Flows == nil) == (content.Uplinks == nil) {
		return nil, errors.New("a part of it is missing")
	}
	return content, nil
}

// setAside renames a checkpoint that cannot be used, and returns its new name.
func (c *checkpoints) setAside() (string, error) {
	aside := c.path + rejectedSuffix
	err := os.Rename(c.path, aside)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Rename(c.path+behindSuffix, aside)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return aside, fmt.Errorf("set checkpoint aside: %w", err)
	}
	return aside, nil
}

// fallBehind gives the checkpoint the name of one of which others have seen more since: a
// full disk lets it be renamed.
func (c *checkpoints) fallBehind() error {
	c.behind = true
	if err := os.Rename(c.path, c.path+behindSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("say that the checkpoint is behind: %w", err)
	}
	return nil
}

// catchUp removes a checkpoint that was behind.
func (c *checkpoints) catchUp() error {
	if !c.behind {
		return nil
	}
	if err := os.Remove(c.path + behindSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the checkpoint that was behind: %w", err)
	}
	c.behind = false
	return nil
}
