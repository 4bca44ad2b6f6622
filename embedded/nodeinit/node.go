package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// runNode is the node's first process, inside its new namespaces.
func runNode(config *Config) error {
	if err := awaitNetwork(os.Stdin); err != nil {
		return err
	}
	steps := []struct {
		what string
		do   func(*Node) error
	}{
		{"mounts", mountFilesystems},
		{"host name", func(node *Node) error { return unix.Sethostname([]byte(node.Hostname)) }},
		{"network", configureNetwork},
	}
	for _, step := range steps {
		if err := step.do(config.Node); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return supervise(config)
}

// awaitNetwork waits until the host has put the node's end of the veth pair
// into this namespace; when the host's side dies first, so does the node.
func awaitNetwork(signal io.Reader) error {
	if _, err := io.ReadFull(signal, make([]byte, 1)); err != nil {
		return fmt.Errorf("the host's side ended before the network was there: %w", err)
	}
	return nil
}

// mountFilesystems gives the node mounts of its own. Everything it needs is
// gathered under a temporary tmpfs first, because the folders it comes from may
// themselves lie below paths that are covered here.
func mountFilesystems(node *Node) error {
	// Unmounting on the host still reaches the node, nothing reaches the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separate mounts from the host: %w", err)
	}
	stage := "/mnt"
	if err := unix.Mount("tmpfs", stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("tmpfs on %s: %w", stage, err)
	}
	cgroups := filepath.Join(stage, "cgroup")
	if err := bind("/sys/fs/cgroup", cgroups); err != nil {
		return err
	}
	for _, name := range sortedKeys(node.Binds) {
		if err := bind(node.Binds[name], filepath.Join(stage, name)); err != nil {
			return err
		}
	}
	steps := []func() error{
		func() error { return mountFresh("proc", "/proc") },
		func() error { return mountFresh("sysfs", "/sys") },
		func() error { return move(cgroups, "/sys/fs/cgroup") },
		func() error { return move(stage, "/run") },
		func() error { return os.Remove("/run/cgroup") },
	}
	for _, path := range sortedKeys(kernelSettings) {
		steps = append(steps, func() error { return showSetting(path, kernelSettings[path]) })
	}
	// Programs write below these without being asked; none of it concerns the host.
	for _, path := range []string{"/tmp", "/var/lib", "/var/log"} {
		steps = append(steps, func() error { return mountFresh("tmpfs", path) })
	}
	for _, path := range sortedKeys(node.Volumes) {
		steps = append(steps, func() error { return bind(node.Volumes[path], path) })
		steps = append(steps, func() error { return openVolumes(path) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	// On a hybrid host the programs then see plain cgroup v1.
	_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH)
	// Pods may ask for mount propagation: mounts below the node are shared within it.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// kernelSettings are those that the kubelet insists on and would change for the
// whole machine, with the values that it looks for.
var kernelSettings = map[string]string{
	"/proc/sys/vm/overcommit_memory":      "1",
	"/proc/sys/vm/panic_on_oom":           "0",
	"/proc/sys/kernel/panic":              "10",
	"/proc/sys/kernel/panic_on_oops":      "1",
	"/proc/sys/kernel/keys/root_maxkeys":  "1000000",
	"/proc/sys/kernel/keys/root_maxbytes": "25000000",
}

// showSetting lets the node's programs see a value in place of the kernel's own,
// which belongs to the host and stays as it is.
func showSetting(path, value string) error {
	shown := filepath.Join("/run/settings", strings.ReplaceAll(path, "/", "."))
	if err := os.MkdirAll(filepath.Dir(shown), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(shown, []byte(value+"\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(shown, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("hide %s: %w", path, err)
	}
	return nil
}

func mountFresh(kind, target string) error {
	if err := unix.Mount(kind, target, kind, unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("%s on %s: %w", kind, target, err)
	}
	return nil
}

func bind(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", source, target, err)
	}
	return nil
}

func move(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to %s: %w", source, target, err)
	}
	return nil
}

func configureNetwork(node *Node) error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return err
	}
	link, err := configureLink("eth0", node.NodeAddress)
	if err != nil {
		return err
	}
	gateway, _, err := net.ParseCIDR(node.HostAddress)
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}

// configureLink gives a link its address and brings it up.
func configureLink(name, address string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	parsed, err := netlink.ParseAddr(address)
	if err != nil {
		return nil, err
	}
	if err := netlink.AddrReplace(link, parsed); err != nil {
		return nil, fmt.Errorf("address %s on %s: %w", address, name, err)
	}
	return link, netlink.LinkSetUp(link)
}

func sortedKeys(values map[string]string) []string {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
