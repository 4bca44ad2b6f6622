package main

import (
	"io"
	"os"
)

const logLimit = 10 << 20 // bytes in a log file before it is moved to NAME.1

// logFile appends to a file that never grows beyond the limit; one older file is kept.
type logFile struct {
	path string
	file *os.File
	size int64
}

func openLog(path string) (*logFile, error) {
	log := &logFile{path: path}
	return log, log.open()
}

func (log *logFile) open() error {
	file, err := os.OpenFile(log.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	log.file, log.size = file, info.Size()
	return nil
}

func (log *logFile) Write(content []byte) (int, error) {
	if log.size+int64(len(content)) > logLimit {
		log.file.Close()
		if err := os.Rename(log.path, log.path+".1"); err != nil {
			return 0, err
		}
		if err := log.open(); err != nil {
			return 0, err
		}
	}
	written, err := log.file.Write(content)
	log.size += int64(written)
	return written, err
}

// drain copies a program's output until its last writer is gone. When the disk
// is full it goes on reading: a program must not block on its own log.
func drain(output *os.File, log *logFile) {
	defer output.Close()
	buffer := make([]byte, 32<<10)
	for {
		count, err := output.Read(buffer)
		if count > 0 {
			_, _ = log.Write(buffer[:count])
		}
		if err == io.EOF || err != nil {
			log.file.Close()
			return
		}
	}
}
