// Command node-init holds one embedded cluster: it starts its programs, starts
// them again when they end, and keeps their logs small. When it ends, however it
// ends, so does everything that it started.
//
// For a whole node there are two processes of it: one on the host, which owns the
// veth pair and the lock, and its child, the first process of the node's own
// namespaces. For a control plane alone there is only the first.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// alreadyRunning is the exit code when another process holds this cluster.
const alreadyRunning = 3

// directoryPeriod is how often it is looked whether the cluster's directory is there.
const directoryPeriod = 5 * time.Second

func init() {
	// Children get the parent-death signal when the thread that started them ends.
	runtime.LockOSThread()
}

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	if len(os.Args) != 3 || (os.Args[1] != "host" && os.Args[1] != "node") {
		fmt.Fprintln(os.Stderr, "usage: node-init host|node CONFIG")
		os.Exit(2)
	}
	config, err := readConfig(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	if err := run(os.Args[1], config, os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(side string, config *Config, path string) error {
	// Each side has a lock of its own: after the host's side was killed, the
	// node's tells when the last process is gone.
	if err := holdLock(config.LockFile + "." + side); err != nil {
		return err
	}
	if side == "node" {
		return runNode(config)
	}
	return runHost(config, path)
}

func runHost(config *Config, path string) error {
	go endWithoutDirectory(config.LockFile + ".host")
	if config.Node == nil {
		return supervise(config)
	}
	if err := createCgroups(config.Node.Cgroup); err != nil {
		return err
	}
	defer removeCgroups(config.Node.Cgroup)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	child, connected, err := startNode(path)
	if err != nil {
		return err
	}
	if err := connect(config.Node, child.Pid); err != nil {
		_ = child.Kill()
		return err
	}
	if _, err := connected.Write([]byte{1}); err != nil {
		_ = child.Kill()
		return err
	}
	go endOn(signals, child)
	state, err := child.Wait()
	if err != nil {
		return err
	}
	if !state.Success() {
		return fmt.Errorf("the node ended: %s", state)
	}
	return nil
}

// endWithoutDirectory ends the cluster when somebody has removed its directory
// by hand: nothing else would ever find its processes again.
func endWithoutDirectory(path string) {
	for range time.Tick(directoryPeriod) {
		if _, err := os.Stat(path); os.IsNotExist(err) {
			log.Printf("%s is gone, and so is this cluster", path)
			_ = syscall.Kill(os.Getpid(), syscall.SIGQUIT)
		}
	}
}

// holdLock takes the cluster's lock for the rest of this process's life.
func holdLock(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(file.Fd(), syscall.F_SETLK, &lock); err != nil {
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
			log.Printf("another process already runs this cluster")
			os.Exit(alreadyRunning)
		}
		return err
	}
	runtime.SetFinalizer(file, nil) // closing the file would release the lock
	held = file
	return nil
}

var held *os.File

// startNode starts this program once more, in namespaces of its own.
func startNode(configPath string) (*os.Process, *os.File, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer reader.Close()
	child, err := os.StartProcess("/proc/self/exe", []string{"node-init", "node", configPath}, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{reader, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
			Pdeathsig:  syscall.SIGKILL,
		},
	})
	if err != nil {
		writer.Close()
		return nil, nil, fmt.Errorf("new namespaces: %w", err)
	}
	return child, writer, nil
}

// connect joins host and node by a veth pair. It goes away with the node's
// network namespace; one that a killed node has not let go of yet is replaced.
func connect(node *Node, pid int) error {
	if stale, err := netlink.LinkByName(node.HostLink); err == nil {
		if err := netlink.LinkDel(stale); err != nil {
			return fmt.Errorf("remove the old %s: %w", node.HostLink, err)
		}
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = node.HostLink
	pair := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("veth pair %s: %w", node.HostLink, err)
	}
	_, err := configureLink(node.HostLink, node.HostAddress)
	return err
}

// endOn passes the wish to end on to the node, and kills it when it does not,
// or at once for SIGQUIT.
func endOn(signals <-chan os.Signal, child *os.Process) {
	if received := <-signals; received != syscall.SIGQUIT {
		_ = child.Signal(syscall.SIGTERM)
		select {
		case <-signals:
		case <-time.After(shutdownBound + 5*time.Second):
		}
	}
	_ = child.Kill()
}
