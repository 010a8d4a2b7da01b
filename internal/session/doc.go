// Package session runs one interactive bash on a terminal of its own and drives it command by command. It is where a
// job's commands run on a host, in a container and in a pod: the shell executor opens a Shell in its own process, and
// package session/helper runs one inside a container, behind the standard streams of an exec.
//
// The shell runs a small driver (see driver.go), which reads the name of a command's file from one pipe, sources that
// file, and prints its exit status to another pipe. So a status is never looked for in a command's output, and no
// output can pass for one. What commands print appears on the terminal, whose other side is read all the time, between
// commands too. The end of the shell is learnt by waiting for its process, so children that live on with the terminal
// open hold up neither a command nor the end of the shell.
//
// What a command finds, besides what bash always has: standard input is a terminal in which every read gives end of
// file at once; output and /dev/tty are another one, so that the kernel doesn't stop background processes that read
// (see console.go). The terminals echo nothing and change no byte of the output, and their modes are put back before
// each command; prompts, history expansion and history files are off. Job control is off as well: it would print
// "[1]+  Done" lines. Commands can't use file descriptors 10 and 11 by number, in which bash keeps the driver's two
// pipes meanwhile (exec {fd}>FILE finds a free one).
package session
