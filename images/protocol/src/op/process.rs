// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on processes.

use super::{Capability, Folder, Handle, Resource, Violation, arguments};

arguments! {
    /// kill(2) of another actor's process.
    Kill {
        /// The actor.
        actor: String,
        /// Standard name, `SIGRTMIN+1` included.
        signal: String,
    }

    /// _exit(2) of this actor.
    Exit {
        /// The status.
        #[serde(default)]
        code: u8,
    }

    /// Waits until another actor's process has ended: `exited N` or `killed SIGNAL`.
    Wait {
        /// The actor.
        actor: String,
    }

    /// setpgid(2): makes this actor the first of a process group of its own, or joins that of another one.
    /// Actors are in their session's group until they ask for one. The number of the group is the value.
    SetGroup {
        /// The actor whose group is joined; absent for a group of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        join: Option<String>,
    }

    /// fork(2): the child plays an actor that is declared with `forked: true`. It inherits descriptors,
    /// mappings, the RDMA context, signal handlers and all handles. The child's number is the value.
    Fork {
        /// The actor that the child plays.
        into: String,
    }

    /// execve(2) of the agent by itself: descriptors without close-on-exec stay, under their handles. All
    /// else goes with the old image: mappings, handlers, the RDMA context's user space.
    Execve {}

    /// setuid(2).
    Setuid {
        /// The number of the user.
        uid: u32,
    }

    /// Gives up capabilities, all sets of the actor's but the bounding one (capset(2)).
    DropCaps {
        /// Which ones; none for all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        caps: Vec<Capability>,
    }

    /// setrlimit(2), both limits.
    Rlimit {
        /// Which resource.
        resource: Resource,
        /// The limit, in the resource's own unit: bytes, or a number.
        limit: u64,
    }

    /// Sends a descriptor to another actor with SCM_RIGHTS, over a socket pair between the two. It is in
    /// flight until the other one receives it.
    SendFd {
        /// The other actor.
        to: String,
        /// The descriptor.
        fd: Handle,
    }

    /// Receives what another actor has sent. Its result is a descriptor, its value the number.
    ReceiveFd {
        /// The other actor.
        from: String,
    }

    /// Runs a program of the guest in a new folder, which is removed again, and waits until it has ended: `ok`
    /// when it exited with 0, else `exited N` or `killed SIGNAL`. It is in a process group of its own. Of what it
    /// prints on each of its streams the first 256 KiB and the last 64 are kept, and with `results` in the step
    /// the standard output is read as TAP or KTAP. Whom it leaves behind is killed, and so is itself when the step
    /// may take no longer.
    Program {
        /// Its name: of one that the image brings (`images/default.yaml`), the source of the kernel under test
        /// (`kernel-configs/selftests.yaml`), or the command line (`--program`).
        name: String,
        /// Its arguments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        args: Vec<String>,
        /// Where its folder is.
        #[serde(default, skip_serializing_if = "super::is_default")]
        on: Folder,
    }

    /// Breaks what a standing oracle watches. For the oracles' own tests.
    Violate {
        /// What to break.
        what: Violation,
    }
}
