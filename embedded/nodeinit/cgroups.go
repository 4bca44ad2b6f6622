package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// createCgroups makes the cluster's folder in every hierarchy. The kubelet
// expects it to exist and keeps all pods below it.
func createCgroups(name string) error {
	if unifiedOnly() {
		return createUnified(name)
	}
	for _, hierarchy := range legacyHierarchies() {
		folder := filepath.Join(hierarchy, name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		// A new cpuset is empty, and nothing can run in it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := inherit(hierarchy, folder, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeCgroups removes the cluster's folders with all below them, as far as
// nothing runs in them any more.
func removeCgroups(name string) {
	tops := []string{filepath.Join(cgroupRoot, name)}
	for _, hierarchy := range legacyHierarchies() {
		tops = append(tops, filepath.Join(hierarchy, name))
	}
	for _, top := range tops {
		var folders []string
		_ = filepath.WalkDir(top, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				folders = append(folders, path)
			}
			return nil
		})
		slices.Reverse(folders) // the deepest first
		for _, folder := range folders {
			_ = os.Remove(folder)
		}
	}
}

func unifiedOnly() bool {
	var info unix.Statfs_t
	return unix.Statfs(cgroupRoot, &info) == nil && info.Type == unix.CGROUP2_SUPER_MAGIC
}

func createUnified(name string) error {
	controllers, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
	if err != nil {
		return err
	}
	var enable []string
	for _, controller := range strings.Fields(string(controllers)) {
		enable = append(enable, "+"+controller)
	}
	folder := filepath.Join(cgroupRoot, name)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, parent := range []string{cgroupRoot, folder} {
		path := filepath.Join(parent, "cgroup.subtree_control")
		if err := os.WriteFile(path, []byte(strings.Join(enable, " ")), 0o644); err != nil {
			return fmt.Errorf("let pods be limited: %w", err)
		}
	}
	return nil
}

func legacyHierarchies() []string {
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil
	}
	var hierarchies []string
	for _, entry := range entries {
		path := filepath.Join(cgroupRoot, entry.Name())
		var info unix.Statfs_t
		// Links such as cpu -> cpu,cpuacct name a hierarchy a second time.
		if entry.IsDir() && unix.Statfs(path, &info) == nil && info.Type == unix.CGROUP_SUPER_MAGIC {
			hierarchies = append(hierarchies, path)
		}
	}
	return hierarchies
}

func inherit(parent, folder, file string) error {
	current, err := os.ReadFile(filepath.Join(folder, file))
	if os.IsNotExist(err) || (err == nil && len(bytes.TrimSpace(current)) > 0) {
		return nil
	}
	if err != nil {
		return err
	}
	value, err := os.ReadFile(filepath.Join(parent, file))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, file), value, 0o644)
}
