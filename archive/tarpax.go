// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"strconv"
	"strings"
)

const (
	// paxRoom is for all records that have no limit of their own.
	paxRoom = 1 << 20

	xattrPrefix = "SCHILY.xattr."
	sparseBlock = "GNU.sparse."
)

// paxRecords are the records of an extended header, in order: those of old GNU
// sparse files repeat.
type paxRecords struct {
	list []paxRecord
}

type paxRecord struct{ key, value string }

// parsePax reads records of the form "LENGTH KEY=VALUE\n".
func parsePax(b []byte) (*paxRecords, error) {
	p := &paxRecords{}
	for len(b) > 0 {
		space := bytes.IndexByte(b, ' ')
		if space <= 0 || space > 20 {
			return nil, bad("a pax record has no length")
		}
		n, err := strconv.ParseUint(string(b[:space]), 10, 32)
		if err != nil || n > uint64(len(b)) || n <= uint64(space+2) || b[n-1] != '\n' {
			return nil, bad("a pax record has a wrong length")
		}
		key, value, ok := strings.Cut(string(b[space+1:n-1]), "=")
		if !ok || key == "" || strings.IndexByte(key, 0) >= 0 {
			return nil, bad("a pax record has no key")
		}
		p.list = append(p.list, paxRecord{key, value})
		b = b[n:]
	}
	return p, nil
}

func (p *paxRecords) get(key string) (value string, ok bool) {
	if p == nil {
		return "", false
	}
	for _, r := range p.list {
		if r.key == key {
			value, ok = r.value, true
		}
	}
	return value, ok
}

// apply lets the records override what the header says.
func (p *paxRecords) apply(e *entry) error {
	for _, r := range p.list {
		if err := r.apply(e); err != nil {
			return bad("entry %s: pax record %s: %v", quote(e.name), quote(r.key), err)
		}
	}
	return nil
}

func (r paxRecord) apply(e *entry) (err error) {
	if key, ok := strings.CutPrefix(r.key, xattrPrefix); ok {
		if key == "" {
			return errNumber
		}
		e.setXattr(key, r.value)
		return nil
	}
	if r.value == "" { // takes a record of a global header back
		return nil
	}
	switch r.key {
	case "path":
		e.name, err = noZero(r.value)
	case "linkpath":
		e.link, err = noZero(r.value)
	case "size":
		var n uint64
		n, err = strconv.ParseUint(r.value, 10, 63)
		e.size, e.stored = int64(n), int64(n)
	case "uid":
		e.uid, err = paxID(r.value)
	case "gid":
		e.gid, err = paxID(r.value)
	case "mtime":
		e.mtime, err = paxTime(r.value)
	}
	return err
}

func (e *entry) setXattr(key, value string) {
	for i := range e.xattrs {
		if e.xattrs[i].key == key {
			e.xattrs[i].value = []byte(value)
			return
		}
	}
	e.xattrs = append(e.xattrs, xattr{key, []byte(value)})
}

func noZero(s string) (string, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return "", errNumber
	}
	return s, nil
}

func paxID(s string) (uint32, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || !validID(n) {
		return 0, errNumber
	}
	return uint32(n), nil
}

// paxTime reads "SECONDS[.FRACTION]", which can be negative.
func paxTime(s string) (stamp, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return stamp{}, errNumber
	}
	if fraction == "" {
		return stamp{sec: sec}, nil
	}
	digits := (fraction + "000000000")[:9]
	nsec, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || strings.Trim(fraction, "0123456789") != "" {
		return stamp{}, errNumber
	}
	if !strings.HasPrefix(whole, "-") || nsec == 0 {
		return stamp{sec: sec, nsec: int64(nsec)}, nil
	}
	return stamp{sec: sec - 1, nsec: 1e9 - int64(nsec)}, nil
}
