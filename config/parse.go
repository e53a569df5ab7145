// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
)

// maxFileSize bounds what Load reads, in bytes: a path that turns out to be a
// device or an endless pipe must not take the memory of the node.
const maxFileSize = 1 << 20

// Load reads and validates the file at path. Keys the file does not have keep
// their value from Default.
//
// A missing file is NotFound, one that can't be opened is PermissionDenied or
// Unknown, and a broken one is InvalidArgument.
func Load(path string) (_ Config, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, openError(path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return Config{}, fmt.Errorf("read config file: %w: %w", err, errdefs.ErrUnknown)
	}
	if len(data) > maxFileSize {
		return Config{}, fmt.Errorf("config file %s is larger than %d bytes: %w", path, maxFileSize, errdefs.ErrInvalidArgument)
	}
	return Parse(data, path)
}

// openError gives an error of opening the file at path its class.
func openError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("config file %s does not exist, \"config default\" prints one to start from: %w", path, errdefs.ErrNotFound)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("config file: %w: %w", err, errdefs.ErrPermissionDenied)
	default:
		return fmt.Errorf("config file: %w: %w", err, errdefs.ErrUnknown)
	}
}

// Parse reads a configuration from TOML and validates it; name stands for the
// file in messages. Keys that data does not have keep their value from
// Default. All errors are InvalidArgument and name the key, and the line
// where there is one.
func Parse(data []byte, name string) (Config, error) {
	cfg := Default()
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		return Config{}, fmt.Errorf("%s: %w", describe(err, name), errdefs.ErrInvalidArgument)
	}
	if cfg.Snapshotter.MountOptions == nil {
		cfg.Snapshotter.MountOptions = []string{}
	}
	if err := cfg.Validate(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return cfg, nil
}

// describe turns a decoder's error into "file:line: problem", several joined
// by "; ". The decoder's own text for unknown keys names none of them.
func describe(err error, name string) string {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		problems := make([]string, 0, len(strict.Errors))
		for i := range strict.Errors {
			line, _ := strict.Errors[i].Position()
			key := strings.Join(strict.Errors[i].Key(), ".")
			problems = append(problems, fmt.Sprintf("%s:%d: unknown key %q", name, line, key))
		}
		return strings.Join(problems, "; ")
	}
	var decode *toml.DecodeError
	if !errors.As(err, &decode) {
		return fmt.Sprintf("%s: %v", name, err)
	}
	line, _ := decode.Position()
	problem := strings.TrimPrefix(decode.Error(), "toml: ")
	if key := strings.Join(decode.Key(), "."); key != "" {
		return fmt.Sprintf("%s:%d: key %q: %s", name, line, key, problem)
	}
	return fmt.Sprintf("%s:%d: %s", name, line, problem)
}
