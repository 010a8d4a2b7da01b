package plugins

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
)

// machines are what this system's kernel can run.
var machines = map[string][]elf.Machine{
	"amd64": {elf.EM_X86_64, elf.EM_386}, "386": {elf.EM_386}, "arm64": {elf.EM_AARCH64, elf.EM_ARM}, "arm": {elf.EM_ARM},
	"riscv64": {elf.EM_RISCV}, "ppc64le": {elf.EM_PPC64}, "s390x": {elf.EM_S390}, "loong64": {elf.EM_LOONGARCH},
}

func isProgram(head []byte) bool { return bytes.HasPrefix(head, []byte(elf.ELFMAG)) }

// checkMachine refuses a program that is made for other processors. Only what the kernel looks at is read: stripped and packed programs
// have little else.
func checkMachine(head []byte) error {
	const typeAt, machineAt = 16, 18
	if len(head) < machineAt+2 {
		return errors.New("it is a damaged program: its ELF header is cut off")
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	kind, machine := elf.Type(order.Uint16(head[typeAt:])), elf.Machine(order.Uint16(head[machineAt:]))
	if kind != elf.ET_EXEC && kind != elf.ET_DYN {
		return fmt.Errorf("it is no program: its ELF type is %s", kind)
	}
	if known, ok := machines[runtime.GOARCH]; ok && !slices.Contains(known, machine) {
		return fmt.Errorf("it is built for other processors (%s) than this host's (%s)", machine, runtime.GOARCH)
	}
	return nil
}
