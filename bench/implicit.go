// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"errors"
	"io"
	"path"
)

// implicit are the directories that some layer of the scenario uses without an entry
// of its own, and the root: containerd changes their modification time, and their
// mode when it unpacks in parallel, where Strata leaves them as the layers below have
// them.
func (c *corpus) implicit(sc scenario) (map[string]bool, error) {
	all := map[string]bool{"/": true}
	for _, name := range sc.layers {
		l, err := c.layer(name, sc.format)
		if err != nil {
			return nil, err
		}
		if err := l.addImplicit(all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (l *layer) addImplicit(all map[string]bool) (err error) {
	r, err := l.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	own, used := map[string]bool{}, map[string]bool{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Join("/", h.Name)
		own[name] = own[name] || h.Typeflag == tar.TypeDir
		for dir := path.Dir(name); !used[dir]; dir = path.Dir(dir) {
			used[dir] = true
		}
	}
	for dir := range used {
		if !own[dir] {
			all[dir] = true
		}
	}
	return nil
}
