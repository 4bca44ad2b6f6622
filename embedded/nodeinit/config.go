package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// Config is what the tool writes for one cluster; see providers/embedded/configuration.py.
type Config struct {
	// LockFile with .host and .node added is held (fcntl) for as long as that side
	// runs: the kernel tells whoever asks for the holder which process it is.
	LockFile string `json:"lockFile"`
	LogDir   string `json:"logDir"`
	// Node is absent for a control plane alone: its programs then run as
	// ordinary processes of the calling user.
	Node       *Node       `json:"node,omitempty"`
	Components []Component `json:"components"`
}

// Node describes the namespaces in which a whole node runs.
type Node struct {
	Hostname string `json:"hostname"`
	// HostLink is the host's end of the veth pair; the node's end is eth0.
	HostLink    string `json:"hostLink"`
	HostAddress string `json:"hostAddress"` // with prefix length, such as 10.200.0.1/30
	NodeAddress string `json:"nodeAddress"`
	// Cgroup is the folder below each hierarchy that holds the pods.
	Cgroup string `json:"cgroup"`
	// Binds are folders of the host that the node sees below /run, by name.
	Binds map[string]string `json:"binds"`
	// Volumes are folders below the binds that the node sees on further paths.
	Volumes map[string]string `json:"volumes"`
}

// Component is one supervised program.
type Component struct {
	Name string   `json:"name"`
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
	// WaitFor are "tcp:HOST:PORT", "unix:PATH" and "done:COMPONENT"; the program
	// is started when all of them hold, or after a minute without.
	WaitFor []string `json:"waitFor,omitempty"`
	// Once marks a program that has to succeed one time.
	Once bool `json:"once,omitempty"`
}

func readConfig(path string) (*Config, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	config := &Config{}
	if err := json.Unmarshal(content, config); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return config, nil
}
