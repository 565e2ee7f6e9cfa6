// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"mime"
	"net/http"
	"path"
	"time"
)

//go:embed assets
var assets embed.FS

const (
	folder = "assets"
	index  = "index.html"
)

// files returns a handler for each file, by path.
func files() map[string]http.Handler {
	entries, err := assets.ReadDir(folder)
	if err != nil {
		panic(err) // it is in the binary
	}
	all := make(map[string]http.Handler, len(entries))
	for _, entry := range entries {
		content, err := assets.ReadFile(path.Join(folder, entry.Name()))
		if err != nil {
			panic(err)
		}
		if entry.Name() == index {
			all["/{$}"] = newFile(index, content)
			continue
		}
		all["/page/"+entry.Name()] = newFile(entry.Name(), content)
	}
	return all
}

// file is served with a mark of its content, by which a browser asks whether it has
// changed: after an upgrade it has the new agent's page at once.
type file struct {
	content    []byte
	mark, kind string
}

func newFile(name string, content []byte) *file {
	sum := sha256.Sum256(content)
	return &file{content: content, mark: `"` + hex.EncodeToString(sum[:8]) + `"`, kind: mediaType(path.Ext(name))}
}

// mediaType does not ask the machine's tables where it matters: a browser refuses a
// module or a style sheet of another type.
func mediaType(extension string) string {
	switch extension {
	case ".html":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	}
	return mime.TypeByExtension(extension)
}

// ServeHTTP implements [http.Handler].
func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", f.mark)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}
