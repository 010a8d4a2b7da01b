// Package systemd is the supervisor's side of a host whose init is systemd: it tells how the service does (sd_notify), and puts
// workers into scopes of their own, where a restart of the service doesn't reach them. Elsewhere its functions do nothing or
// return ErrUnavailable.
package systemd

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrUnavailable says that there is no systemd to ask; what needs it has to fall back to what the kernel offers.
var ErrUnavailable = errors.New("systemd is not this host's init")

// What Notify can be told. See also Status, Reloading and ExtendTimeout.
const (
	// Ready ends the start, or a reload.
	Ready = "READY=1"
	// Stopping begins the end. From here on systemd waits for the service's TimeoutStopSec.
	Stopping = "STOPPING=1"
)

// maxStatus bounds a status line, in bytes: systemd takes 4 KiB a message.
const maxStatus = 1000

// Status is the line that `systemctl status` shows.
func Status(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxStatus {
		text = strings.ToValidUTF8(text[:maxStatus], "") + "…"
	}
	return "STATUS=" + text
}

// ExtendTimeout asks for d more, from now, before systemd takes the start or stop that is going on for hung. It never shortens.
func ExtendTimeout(d time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds())
}
