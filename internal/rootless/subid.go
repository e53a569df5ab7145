// SPDX-License-Identifier: Apache-2.0

package rootless

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Range maps Count consecutive ids from Inside on, as the namespace has them, to the
// ids from Outside on.
type Range struct{ Inside, Outside, Count uint32 }

// maxRanges is the number of lines that the kernel takes in an id map
// (user_namespaces(7): 340 since Linux 4.15).
const maxRanges = 340

// idSpace is the number of valid ids: the last 32-bit number is "no id".
const idSpace = uint64(1)<<32 - 1

// Map is the id map of an ordinary user's namespace: the user's own id is 0, and the
// subordinate ids follow from 1 on, in the order of the file (subuid(5)). own is the
// user's id, and names are what the file may call the user by: the login name and the
// decimal id. Lines that make no sense are passed over, as newuidmap does.
//
// ErrNotFound: the file has no ids for the user.
func Map(file io.Reader, own uint32, names ...string) ([]Range, error) {
	ranges := []Range{{Inside: 0, Outside: own, Count: 1}}
	next := uint64(1)
	lines := bufio.NewScanner(file)
	for lines.Scan() && len(ranges) < maxRanges {
		start, count, ok := parseLine(lines.Text(), names)
		if !ok {
			continue
		}
		count = min(count, idSpace-next, idSpace-start)
		if count == 0 || overlaps(ranges, start, count) {
			continue // the kernel would refuse the whole map
		}
		ranges = append(ranges, Range{uint32(next), uint32(start), uint32(count)})
		next += count
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(ranges) == 1 {
		return nil, fmt.Errorf("no ids for the user %s: %w", names[0], errdefs.ErrNotFound)
	}
	return ranges, nil
}

// parseLine reads NAME:START:COUNT.
func parseLine(line string, names []string) (start, count uint64, ok bool) {
	fields := strings.Split(strings.TrimSpace(line), ":")
	if len(fields) != 3 || !slices.Contains(names, fields[0]) {
		return 0, 0, false
	}
	start, err := strconv.ParseUint(fields[1], 10, 32)
	if err != nil || start >= idSpace {
		return 0, 0, false
	}
	count, err = strconv.ParseUint(fields[2], 10, 64)
	return start, count, err == nil || errors.Is(err, strconv.ErrRange)
}

func overlaps(ranges []Range, start, count uint64) bool {
	return slices.ContainsFunc(ranges, func(r Range) bool {
		return start < uint64(r.Outside)+uint64(r.Count) && uint64(r.Outside) < start+count
	})
}

// readMap is Map of a file. A file that is not there has no ids for the user.
func readMap(path string, own uint32, names []string) (_ []Range, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	ranges, err := Map(f, own, names...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ranges, nil
}
