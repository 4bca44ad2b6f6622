package main

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openVolumes lets pods of every user write to the volumes in a folder, now
// and from now on, as other clusters' default storage does. The controller
// manager's host-path provisioner makes a volume's folder for root alone
// (mode 0750), and the kubelet does not apply a pod's fsGroup to host paths.
func openVolumes(folder string) error {
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("watch %s: %w", folder, err)
	}
	if _, err := unix.InotifyAddWatch(watch, folder, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		return fmt.Errorf("watch %s: %w", folder, err)
	}
	present, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range present {
		openVolume(filepath.Join(folder, entry.Name()))
	}
	go func() {
		buffer := make([]byte, 64*1024)
		for {
			count, err := unix.Read(watch, buffer)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || count < unix.SizeofInotifyEvent {
				log.Printf("volumes in %s stay closed to pods that are not root: %v", folder, err)
				return
			}
			for _, name := range createdNames(buffer[:count]) {
				openVolume(filepath.Join(folder, name))
			}
		}
	}()
	return nil
}

// openVolume changes a fresh volume's folder, and nothing that somebody gave other rights.
func openVolume(path string) {
	info, err := os.Lstat(path)
	if err != nil || !info.IsDir() || info.Mode().Perm() != 0o750 {
		return
	}
	if err := os.Chmod(path, 0o777); err != nil {
		log.Printf("volume %s stays closed to pods that are not root: %v", path, err)
	}
}

// createdNames are the names in a buffer of inotify events.
func createdNames(events []byte) []string {
	var names []string
	for len(events) >= unix.SizeofInotifyEvent {
		event := (*unix.InotifyEvent)(unsafe.Pointer(&events[0]))
		end := unix.SizeofInotifyEvent + int(event.Len)
		if end > len(events) {
			break
		}
		name := bytes.TrimRight(events[unix.SizeofInotifyEvent:end], "\x00")
		if len(name) > 0 {
			names = append(names, string(name))
		}
		events = events[end:]
	}
	return names
}
