// Command keeper runs one command and ends it when its own parent goes away, however that happens.
//
//	keeper [--term-grace 5s] -- command args...
//
// The parent holds the write end of keeper's stdin. When stdin reaches its end (closed on purpose, or by the kernel
// because the parent died), the command gets SIGTERM and, after the grace, SIGKILL. When keeper itself is killed the
// kernel kills the command (Pdeathsig). keeper prints nothing unless it fails, and exits with the command's code.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// usageError is the exit code for wrong arguments or a command that could not be started.
const usageError = 125

func main() {
	// Pdeathsig fires when the *thread* that started the child ends, so this thread must live as long as we do.
	runtime.LockOSThread()
	grace := flag.Duration("term-grace", 5*time.Second, "time between SIGTERM and SIGKILL")
	flag.Parse()
	if flag.NArg() == 0 {
		fail("no command given")
	}
	os.Exit(keep(*grace, flag.Args()))
}

func keep(grace time.Duration, args []string) int {
	// Registered before the start, so that no signal is lost between the two.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)

	command := exec.Command(args[0], args[1:]...)
	command.Stdout = os.Stdout
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := command.Start(); err != nil {
		fail(err.Error())
	}
	group := -command.Process.Pid

	parentGone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(parentGone)
	}()
	exited := make(chan error, 1)
	go func() { exited <- command.Wait() }()

	var deadline <-chan time.Time
	for {
		select {
		case received := <-signals:
			_ = syscall.Kill(group, received.(syscall.Signal))
			if received != syscall.SIGHUP && deadline == nil {
				deadline = time.After(grace)
			}
		case <-parentGone:
			parentGone = nil
			_ = syscall.Kill(group, syscall.SIGTERM)
			if deadline == nil {
				deadline = time.After(grace)
			}
		case <-deadline:
			_ = syscall.Kill(group, syscall.SIGKILL)
		case err := <-exited:
			// What the command left behind in its group goes with it.
			_ = syscall.Kill(group, syscall.SIGKILL)
			return exitCode(err)
		}
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return usageError
		}
		return 0
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return exit.ExitCode()
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, "keeper:", message)
	os.Exit(usageError)
}
