// Command echo is the peer to beat: the echo server as one writes it in Go, with a
// goroutine for each connection, a buffered reader and one write for each line.
//
// Usage: echo [-print] PORT PREFIX. With -print it prints every request and
// response, as the well-known demonstration's server does.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
)

func main() {
	print := flag.Bool("print", false, "print every request and response")
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("usage: echo [-print] PORT PREFIX")
	}
	listener, err := net.Listen("tcp", ":"+flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Print(err)
			continue
		}
		go serve(conn, flag.Arg(1), *print)
	}
}

// serve answers each line of one connection until its end.
func serve(conn net.Conn, prefix string, print bool) {
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for {
		request, err := reader.ReadBytes('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) && print {
				fmt.Println("read:", err)
			}
			return
		}
		response := fmt.Sprintf("%s %s", prefix, request)
		if print {
			fmt.Printf("request: %s", request)
			fmt.Printf("response: %s", response)
		}
		if _, err := io.WriteString(conn, response); err != nil {
			return
		}
	}
}
