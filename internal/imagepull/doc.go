// Package imagepull tells people how the pull of an image goes: a line a second at most while it lasts, and one line that says what is
// wrong, and what to do, when it fails. It reads what the Docker Engine answers to a pull, and talks to nobody itself.
package imagepull
