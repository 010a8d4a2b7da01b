// Package systemd boots a systemd of its own, in a container, and runs Signalman there as operators do: by the unit file that is
// packaged, against a hub in the test's process. It is skipped where there is no image to boot (scripts/systemd-root makes it), unless
// SIGNALMAN_TEST_SYSTEMD=require is set.
package systemd
