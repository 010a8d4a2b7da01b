// Package pullauth turns the image pull credentials of a job into what the Docker Engine wants with a pull. It is for workers; the
// supervisor doesn't link it. Secrets stay in memory: nothing is written to disk, to the host's Docker configuration or to a log, and
// neither errors nor the descriptions hold a value of a credential other than its registry and user.
package pullauth
