// SPDX-License-Identifier: Apache-2.0

// Command traffic sends and answers traffic of known size inside pods.
//
//	traffic serve [ADDRESS]:PORT…               echo datagrams; answer TCP requests
//	traffic udp ADDRESS:PORT COUNT SIZE         so many datagrams of so many bytes, each echoed
//	traffic tcp ADDRESS:PORT REQUEST RESPONSE   one connection, so many bytes each way
//	traffic stream ADDRESS:PORT SECONDS         one connection, as fast as it goes
//	traffic flood SECONDS PREFIX…               datagrams to any address and port of the prefixes
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("want serve, udp, tcp, stream or flood, and its arguments")
	}
	if args[0] == "serve" {
		return serve(args[1:])
	}
	numbers, err := integers(args[2:])
	switch {
	case args[0] == "flood" && len(args) > 2:
		return flood(args[1], args[2:])
	case err != nil:
		return err
	case args[0] == "udp" && len(numbers) == 2:
		return datagrams(args[1], numbers[0], numbers[1])
	case args[0] == "tcp" && len(numbers) == 2:
		return request(args[1], numbers[0], numbers[1])
	case args[0] == "stream" && len(numbers) == 1:
		return stream(args[1], numbers[0])
	}
	return fmt.Errorf("cannot do %q", args)
}

func integers(args []string) (numbers []int64, err error) {
	for _, arg := range args {
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q: want a number, 0 or more", arg)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}
