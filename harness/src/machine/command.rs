// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's command line, and the script that boots the same machine without Holdfast.

use std::fmt::Write as _;
use std::path::Path;

use holdfast_protocol::PORT_NAME;

use super::accel::Kind;
use super::{Clock, Machine, pmem_file};

/// Who sits at the machine's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Holdfast: sockets in the working directory, the console into a file there.
    Host,
    /// A person: the console on the terminal.
    Terminal,
}

/// What the machine's memory is made of, and with it how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory<'a> {
    /// Memory of its own: it boots.
    Own,
    /// This file, which keeps what is written: it boots, to be saved.
    File(&'a Path),
    /// What this file held when the machine was saved; what a copy writes is its own (MAP_PRIVATE). It
    /// waits to be told, over QMP, where the rest of its state comes from.
    CopyOf(&'a Path),
}

/// Socket of the agent's port, in QEMU's working directory.
pub(super) const AGENT_SOCKET: &str = "agent.sock";
/// Socket of QMP.
pub(super) const QMP_SOCKET: &str = "qmp.sock";
/// Socket of the gdb stub.
pub const GDB_SOCKET: &str = "gdb.sock";
/// Socket of the virtio console.
pub const SHELL_SOCKET: &str = "shell.sock";
/// The serial console.
pub const CONSOLE: &str = "console.log";

/// Kernel arguments every guest gets: a crash is a prompt end of QEMU, warnings reach the console.
const APPEND: &str = "console=ttyS0 loglevel=5 oops=panic panic=-1";

/// All that can be executed; under translation but for cmpxchg16b, behind which QEMU 7.2 leaves in the flags
/// what an addition before it was given. An interrupt right there saves them, and the return from it is a double
/// fault: once in some hundred cases with a kernel whose slabs use the instruction, as those of all but
/// CONFIG_SLUB_TINY do (mm/slub.c).
const fn cpu(kind: Kind) -> &'static str {
    match kind {
        Kind::Kvm => "max",
        Kind::Tcg => "max,-cx16",
    }
}

/// All that the kernel is told.
#[must_use]
pub(super) fn kernel_arguments(machine: &Machine) -> String {
    // Addresses are those of vmlinux.
    let gdb = if machine.inside.gdb { "nokaslr " } else { "" };
    format!("{APPEND} {gdb}{}", machine.append).trim_end().to_owned()
}

/// QEMU's arguments, without the program's name; file names are relative to the case's folder.
#[must_use]
pub fn arguments(machine: &Machine, memory: Memory<'_>, ports: Ports) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| args.extend([format!("-{option}"), value]);
    let pmem_mib: u64 = machine.pmem.iter().map(|device| device.size_mib).sum();
    let accelerator = machine.accelerator.kind.name();
    add("name", "holdfast".into());
    add("machine", format!("q35,nvdimm=on,accel={accelerator},memory-backend=ram"));
    add("cpu", cpu(machine.accelerator.kind).into());
    add("smp", machine.cpus.to_string());
    if machine.clock == Clock::Instructions {
        // One instruction is 2^0 ns.
        add("icount", "shift=0,sleep=on".into());
    }
    let slots = machine.pmem.len();
    add("m", format!("{}M,slots={slots},maxmem={}M", machine.memory_mib, machine.memory_mib + pmem_mib));
    let size = machine.memory_mib;
    add(
        "object",
        match memory {
            Memory::Own => format!("memory-backend-ram,id=ram,size={size}M"),
            Memory::File(path) => {
                format!("memory-backend-file,id=ram,share=on,mem-path={},size={size}M", path.display())
            }
            Memory::CopyOf(path) => {
                format!("memory-backend-file,id=ram,share=off,mem-path={},size={size}M", path.display())
            }
        },
    );
    if matches!(memory, Memory::CopyOf(_)) {
        // The kernel is in the memory already.
        add("incoming", "defer".into());
    } else {
        add("kernel", machine.kernel.display().to_string());
        add("initrd", machine.initrd.display().to_string());
        add("append", kernel_arguments(machine));
    }
    add("display", "none".into());
    for (nr, device) in machine.pmem.iter().enumerate() {
        let (file, size) = (pmem_file(device.place), device.size_mib);
        add("object", format!("memory-backend-file,id=mem{nr},share=on,mem-path={file},size={size}M"));
        add("device", format!("nvdimm,id=nvdimm{nr},memdev=mem{nr}"));
    }
    match ports {
        Ports::Host => {
            // Behind what an earlier life of the same machine has said.
            add("chardev", format!("file,id=console,path={CONSOLE},append=on"));
            add("serial", "chardev:console".into());
            add("device", "virtio-serial-pci".into());
            add("chardev", format!("socket,id=agent,path={AGENT_SOCKET}"));
            add("device", format!("virtserialport,chardev=agent,name={PORT_NAME}"));
            add("chardev", format!("socket,id=qmp,path={QMP_SOCKET}"));
            add("mon", "chardev=qmp,mode=control".into());
            if machine.inside.shell {
                add("chardev", format!("socket,id=shell,path={SHELL_SOCKET},server=on,wait=off"));
                add("device", "virtconsole,chardev=shell".into());
            }
            if machine.inside.gdb {
                add("chardev", format!("socket,id=gdb,path={GDB_SOCKET},server=on,wait=off"));
                add("gdb", "chardev:gdb".into());
            }
        }
        Ports::Terminal => add("serial", "mon:stdio".into()),
    }
    args.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from));
    if machine.inside.gdb && ports == Ports::Host {
        args.push("-S".to_owned());
    }
    args
}

/// A shell script that boots the same kernel and image by itself, console on the terminal, on
/// copies of the case's pmem files; where they are gone it starts with empty ones.
#[must_use]
pub fn script(machine: &Machine) -> String {
    let mut text = String::from(
        "#!/bin/sh\n\
         # The same kernel, image and machine without Holdfast, console on this terminal (leave with ctrl-a x).\n\
         # It works on copies: the evidence beside this script stays as it is.\n\
         set -eu\n\
         here=$(cd \"$(dirname \"$0\")\" && pwd)\n\
         copy=$(mktemp -d \"${TMPDIR:-/tmp}/holdfast-shell-XXXXXX\")\n\
         trap 'rm -rf \"$copy\"' EXIT\n\
         trap 'exit 130' INT TERM HUP\n\
         cd \"$copy\"\n",
    );
    for device in &machine.pmem {
        let (file, size) = (pmem_file(device.place), device.size_mib);
        let _ = writeln!(
            text,
            "if [ -e \"$here/{file}\" ]; then cp --sparse=always \"$here/{file}\" {file}; else truncate -s {size}M {file}; fi"
        );
    }
    // QEMU ends with the script, however that ends.
    let _ = write!(text, "setpriv --pdeathsig KILL {}", quoted(&machine.qemu.display().to_string()));
    for argument in arguments(machine, Memory::Own, Ports::Terminal) {
        let _ =
            write!(text, "{}{}", if argument.starts_with('-') { " \\\n  " } else { " " }, quoted(&argument));
    }
    text.push_str(" \"$@\"\n");
    text
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::accel::Accelerator;
    use super::super::{Inside, default_pmem};
    use super::*;

    fn machine() -> Machine {
        Machine {
            qemu: "qemu-system-x86_64".into(),
            accelerator: Accelerator { kind: Kind::Tcg, why: String::new() },
            kernel: "/k/bzImage".into(),
            initrd: "/i/it's.cpio".into(),
            append: "lockdep".into(),
            cpus: 1,
            memory_mib: 512,
            pmem: default_pmem(),
            clock: Clock::Host,
            inside: Inside::default(),
        }
    }

    #[test]
    fn the_host_sits_at_sockets_in_the_working_directory() {
        insta::assert_snapshot!(arguments(&machine(), Memory::Own, Ports::Host).join("\n"));
    }

    #[test]
    fn a_copy_is_the_same_machine_but_for_its_beginning() {
        let all = |memory| arguments(&machine(), memory, Ports::Host).join(" ").replace(" -", "\n-");
        let (booted, copy) = (all(Memory::File(Path::new("/c/ram"))), all(Memory::CopyOf(Path::new("/c/ram"))));
        let (booted, copy): (Vec<&str>, Vec<&str>) = (booted.lines().collect(), copy.lines().collect());
        let only = |these: &[&str], those: &[&str]| -> Vec<String> {
            these.iter().filter(|line| !those.contains(line)).map(|line| (*line).to_owned()).collect()
        };
        assert_eq!(
            only(&copy, &booted),
            ["-object memory-backend-file,id=ram,share=off,mem-path=/c/ram,size=512M", "-incoming defer"]
        );
        let words: Vec<String> = only(&booted, &copy);
        assert_eq!(words.len(), 4, "{words:?}");
        assert!(words.iter().any(|word| word.contains("share=on,mem-path=/c/ram")));
    }

    #[test]
    fn a_machine_that_counts_is_no_copy_of_one_that_does_not() {
        // They are part of the key of a saved machine.
        let copy = |clock| {
            let machine = Machine { clock, ..machine() };
            arguments(&machine, Memory::CopyOf(Path::new("")), Ports::Host)
        };
        let (host, counts) = (copy(Clock::Host), copy(Clock::Instructions));
        assert_eq!(counts.len(), host.len() + 2, "{counts:?}");
        assert!(counts.windows(2).any(|words| words == ["-icount", "shift=0,sleep=on"]));
        assert!(host.iter().all(|word| word != "-icount"));
    }

    #[test]
    fn a_person_looks_inside_through_sockets_of_the_folder() {
        let inside = Inside { gdb: true, shell: true };
        let args = |ports| arguments(&Machine { inside, ..machine() }, Memory::Own, ports).join(" ");
        let host = args(Ports::Host);
        for part in [
            "-S",
            "-gdb chardev:gdb",
            "path=gdb.sock,",
            "virtconsole,chardev=shell",
            "path=shell.sock,",
            "nokaslr",
        ] {
            assert!(host.contains(part), "{part} is not in {host}");
        }
        let other = args(Ports::Terminal);
        assert!(
            !other.contains(".sock") && !other.contains("-S"),
            "a person at the console has it all: {other}"
        );
    }

    #[test]
    fn the_script_is_whole() {
        insta::assert_snapshot!(script(&machine()));
    }
}
