package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	firstBackoff  = 500 * time.Millisecond
	longestPause  = 30 * time.Second
	stableAfter   = time.Minute      // a program that ran this long starts again without a pause
	waitForBound  = time.Minute      // how long a program waits for those it needs
	shutdownBound = 10 * time.Second // how long programs may take to end by themselves
)

// supervisor runs the components, starts them again when they end and reaps
// every orphan. All of it happens on one thread, because the kernel sends the
// parent-death signal when the *thread* that started a child ends.
type supervisor struct {
	config   *Config
	running  map[int]*program
	ready    chan *program
	stopping bool
	deadline <-chan time.Time
}

type program struct {
	Component
	started time.Time
	backoff time.Duration
	done    chan struct{} // closed when a Once program has succeeded
}

func supervise(config *Config) error {
	if err := os.MkdirAll(config.LogDir, 0o700); err != nil {
		return err
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)

	s := &supervisor{config: config, running: map[int]*program{}, ready: make(chan *program)}
	s.schedule()
	for {
		select {
		case p := <-s.ready:
			s.start(p)
		case received := <-signals:
			switch received {
			case syscall.SIGCHLD:
				s.reap()
			case syscall.SIGQUIT:
				s.stop(syscall.SIGKILL)
			default:
				s.stop(syscall.SIGTERM)
			}
		case <-s.deadline:
			return fmt.Errorf("%d programs did not end within %s and are killed", len(s.running), shutdownBound)
		}
		if s.stopping && len(s.running) == 0 {
			return nil
		}
	}
}

// schedule lets every program wait for what it needs, each on its own.
func (s *supervisor) schedule() {
	done := map[string]chan struct{}{}
	for _, component := range s.config.Components {
		done[component.Name] = make(chan struct{})
	}
	for _, component := range s.config.Components {
		p := &program{Component: component, backoff: firstBackoff, done: done[component.Name]}
		go func() {
			if missing := waitFor(p.WaitFor, done); missing != "" {
				log.Printf("%s: starting without %s, which did not show up within %s", p.Name, missing, waitForBound)
			}
			s.ready <- p
		}()
	}
}

func (s *supervisor) start(p *program) {
	if s.stopping {
		return
	}
	pid, err := launch(p.Component, s.config.LogDir)
	p.started = time.Now()
	if err != nil {
		log.Printf("%s: %v", p.Name, err)
		s.again(p)
		return
	}
	s.running[pid] = p
}

// again starts a program that ended, later each time it ends soon.
func (s *supervisor) again(p *program) {
	if time.Since(p.started) > stableAfter {
		p.backoff = firstBackoff
	}
	pause := p.backoff
	p.backoff = min(2*p.backoff, longestPause)
	time.AfterFunc(pause, func() { s.ready <- p })
}

func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if pid <= 0 || err != nil {
			return
		}
		p, ours := s.running[pid]
		if !ours {
			continue // an orphan, such as a container's shim
		}
		delete(s.running, pid)
		s.ended(p, status)
	}
}

func (s *supervisor) ended(p *program, status syscall.WaitStatus) {
	if p.Once && status.ExitStatus() == 0 {
		close(p.done)
		return
	}
	if s.stopping {
		return
	}
	cause := fmt.Sprintf("exit code %d", status.ExitStatus())
	if status.Signaled() {
		cause = status.Signal().String()
	}
	log.Printf("%s: ended after %s (%s), starting it again", p.Name, time.Since(p.started).Round(time.Millisecond), cause)
	s.again(p)
}

func (s *supervisor) stop(by syscall.Signal) {
	if !s.stopping {
		s.stopping = true
		s.deadline = time.After(shutdownBound)
	}
	for pid := range s.running {
		_ = syscall.Kill(pid, by)
	}
}

func launch(component Component, logDir string) (int, error) {
	logged, err := openLog(filepath.Join(logDir, component.Name+".log"))
	if err != nil {
		return 0, err
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		logged.file.Close()
		return 0, err
	}
	defer writer.Close()
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		logged.file.Close()
		reader.Close()
		return 0, err
	}
	defer nothing.Close()
	process, err := os.StartProcess(component.Argv[0], component.Argv, &os.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), component.Env...),
		Files: []*os.File{nothing, writer, writer},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	})
	if err != nil {
		logged.file.Close()
		reader.Close()
		return 0, err
	}
	go drain(reader, logged)
	pid := process.Pid
	return pid, process.Release() // reap waits for it
}

// waitFor returns the first condition that does not hold within the bound, or "".
func waitFor(conditions []string, done map[string]chan struct{}) string {
	deadline := time.Now().Add(waitForBound)
	for _, condition := range conditions {
		kind, target, _ := strings.Cut(condition, ":")
		if kind == "done" {
			select {
			case <-done[target]:
			case <-time.After(time.Until(deadline)):
				return condition
			}
			continue
		}
		for {
			connection, err := net.DialTimeout(kind, target, time.Second)
			if err == nil {
				connection.Close()
				break
			}
			if time.Now().After(deadline) {
				return condition
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return ""
}
