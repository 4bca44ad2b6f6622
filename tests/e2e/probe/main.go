// Command probe is the program of the smallest image that can tell whether a
// cluster's network, names and storage work.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	commands := map[string]func([]string) error{
		"resolve": resolve, "write": write, "read": read, "serve": serve, "get": get, "sleep": sleep,
		"cat": cat, "fail": fail,
		"crash": crash, "environment": environment, "wait": wait,
		"serve-after": serveAfter, "eat": eat, "exit": exit, "produce": produce, "tick": tick,
	}
	command, known := commands[os.Args[1]]
	if !known {
		fmt.Fprintln(os.Stderr, "unknown command", os.Args[1])
		os.Exit(2)
	}
	if err := command(os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func resolve(arguments []string) error {
	limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(limit, arguments[0])
	fmt.Println(strings.Join(addresses, " "))
	return err
}

func write(arguments []string) error {
	return os.WriteFile(arguments[0], []byte(arguments[1]), 0o644)
}

func read(arguments []string) error {
	content, err := os.ReadFile(arguments[0])
	fmt.Println(string(content))
	if err != nil {
		// A build's last words are lost when it ends before buildah has read them.
		fmt.Fprintln(os.Stderr, err)
		time.Sleep(time.Second)
	}
	return err
}

func serve(arguments []string) error {
	http.HandleFunc("/", func(answer http.ResponseWriter, _ *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprint(answer, name)
	})
	return http.ListenAndServe(":"+arguments[0], nil)
}

func get(arguments []string) error {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(arguments[0])
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}

func sleep([]string) error {
	time.Sleep(time.Hour)
	return nil
}

func wait(arguments []string) error {
	duration, err := time.ParseDuration(arguments[0])
	time.Sleep(duration)
	return err
}

func crash(arguments []string) error {
	return errors.New(strings.Join(arguments, " "))
}

func environment([]string) error {
	fmt.Println(strings.Join(os.Environ(), "\n"))
	return nil
}

// cat gives back what it reads, byte by byte.
func cat([]string) error {
	_, err := io.Copy(os.Stdout, os.Stdin)
	return err
}

// fail says its argument and ends with code 3.
func fail(arguments []string) error {
	fmt.Println(arguments[0])
	os.Exit(3)
	return nil
}

// serveAfter serves (second argument: port) if a URL answers, and crashes if it does not yet.
func serveAfter(arguments []string) error {
	if err := get(arguments[:1]); err != nil {
		return err
	}
	return serve(arguments[1:])
}

// eat uses memory until it is killed.
func eat([]string) error {
	var held [][]byte
	for {
		block := make([]byte, 1<<20)
		for at := range block {
			block[at] = byte(at)
		}
		held = append(held, block)
		if len(held) > 1<<14 {
			return errors.New("no limit was met")
		}
	}
}

func exit(arguments []string) error {
	code, err := strconv.Atoi(arguments[0])
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "exiting with", code)
	os.Exit(code)
	return nil
}

// produce writes as many mebibytes as asked for: every byte value, again and again.
func produce(arguments []string) error {
	count, err := strconv.Atoi(arguments[0])
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for at := range block {
		block[at] = byte(at)
	}
	for ; count > 0; count-- {
		if _, err := os.Stdout.Write(block); err != nil {
			return err
		}
	}
	return nil
}

// tick writes a numbered line every tenth of a second.
func tick([]string) error {
	for number := 0; ; number++ {
		fmt.Println("tick", number)
		time.Sleep(100 * time.Millisecond)
	}
}
