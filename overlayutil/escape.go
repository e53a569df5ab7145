// SPDX-License-Identifier: Apache-2.0

package overlayutil

import "strings"

// The characters that overlay gives a meaning in the option string of mount(2):
// ',' ends an option, ':' ends a lower directory, '\' takes the meaning away.
// Every other byte stands for itself (a test mounts all of them).
const specialBytes = `:,\`

var (
	lowerEscaper  = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `:`, `\:`)
	optionEscaper = strings.NewReplacer(`\`, `\\`, `,`, `\,`)
)

// NeedsEscape tells whether the path has a character that means something in
// overlay's mount options. Such a path costs: containerd's mount code splits
// long or id-mapped lower directories at every ':' and its differ takes options
// literally, so a root directory like that is better served under another name.
func NeedsEscape(path string) bool {
	return strings.ContainsAny(path, specialBytes)
}

// EscapeLower writes a path as one element of lowerdir= for mount(2).
func EscapeLower(path string) string {
	return lowerEscaper.Replace(path)
}

// EscapeOption writes a path as the value of upperdir= or workdir= for
// mount(2). A colon stays as it is: there is no list to end, and containerd's
// differ uses the value of upperdir= as a path without undoing any escape.
func EscapeOption(path string) string {
	return optionEscaper.Replace(path)
}
