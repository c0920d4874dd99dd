// SPDX-License-Identifier: Apache-2.0

// goroutines WHAT N [FILE]: calls of functions in Go, whose stacks move; see main.
//
// FILE gets a line per call of main.timed: nanoseconds from the first to the last thing that the
// call did, and from before to after it.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

//go:noinline
func timed(ns time.Duration) int64 {
	start := time.Now()
	for time.Since(start) < ns {
	}
	return int64(time.Since(start))
}

// Needs a larger stack at almost every level.
//
//go:noinline
func grow(levels int) int {
	var space [1024]byte
	space[levels%1024] = byte(levels)
	if levels == 0 {
		runtime.Gosched()
		return int(space[0])
	}
	return grow(levels-1) + int(space[levels%1024])
}

// One call in four is left by a panic.
//
//go:noinline
func panics(n int) int {
	if n%4 == 0 {
		panic("left")
	}
	return n
}

// Recovers: always returns.
//
//go:noinline
func recovers(n int) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	panics(n)
	return true
}

// Sleeps inside, and may go on in another thread.
//
//go:noinline
func waits(numbers chan int) int {
	return <-numbers
}

func crowd(n int, work func(int)) {
	var all sync.WaitGroup
	for i := 0; i < n; i++ {
		all.Add(1)
		go func(i int) {
			work(i)
			all.Done()
		}(i)
	}
	all.Wait()
}

func main() {
	what, input := os.Args[1], bufio.NewReader(os.Stdin)
	n, _ := strconv.Atoi(os.Args[2])
	var spans [][2]int64
	returned := 0
	runtime.GOMAXPROCS(4)
	fmt.Println("ready", os.Getpid())
	input.ReadString('\n')
	switch what {
	case "timed": // main.timed: N
		for i := 0; i < n; i++ {
			start := time.Now()
			inside := timed(50 * time.Microsecond)
			spans = append(spans, [2]int64{inside, int64(time.Since(start))})
		}
	case "grow": // main.grow: 21 N, on stacks that move while calls are under way
		crowd(n, func(int) { grow(20) })
	case "panics": // main.panics: N, of which a quarter is left; main.recovers: N
		for i := 0; i < n; i++ {
			if recovers(i) {
				returned++
			}
		}
	case "waits": // main.waits: N at the same time, in all threads
		numbers := make(chan int)
		go func() {
			for i := 0; i < n; i++ {
				time.Sleep(time.Microsecond)
				numbers <- i
			}
		}()
		crowd(n, func(int) { waits(numbers) })
	}
	if len(os.Args) > 3 {
		file, _ := os.Create(os.Args[3])
		for _, one := range spans {
			fmt.Fprintln(file, one[0], one[1])
		}
		file.Close()
	}
	fmt.Println("done", returned)
	input.ReadString('\n')
}
