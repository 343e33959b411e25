// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on RDMA devices, memory regions and queue pairs.

use super::{Access, Handle, arguments};

arguments! {
    /// ibv_reg_mr(3) of a whole mapping: a long-term pin. Its result is a memory region.
    RegMr {
        /// The mapping.
        map: Handle,
        /// IBV_ACCESS_* flags; none means local read only.
        #[serde(default)]
        access: Vec<Access>,
    }

    /// ibv_dereg_mr(3).
    DeregMr {
        /// The memory region.
        mr: Handle,
    }

    /// Connects a reliable queue pair (RC) of this actor with one of another actor.
    Connect {
        /// The other actor; it must not be inside a blocked call.
        to: String,
    }

    /// RDMA WRITE of a pattern into another actor's region, over the queue pair between the two.
    /// `ok` when the completion says IBV_WC_SUCCESS.
    RdmaWrite {
        /// The other actor's region.
        mr: Handle,
        /// Offset in the region.
        at_kib: u64,
        /// Length.
        len_kib: u64,
        /// The pattern's seed.
        pattern: u8,
    }

    /// RDMA READ from another actor's region, compared with a pattern.
    RdmaRead {
        /// The other actor's region.
        mr: Handle,
        /// Offset in the region.
        at_kib: u64,
        /// Length.
        len_kib: u64,
        /// The pattern's seed.
        pattern: u8,
    }

    /// SEND of a pattern, whose offsets begin at 0, to another actor that is in [`RdmaReceive`].
    RdmaSend {
        /// The other actor.
        to: String,
        /// Length.
        len_kib: u64,
        /// The pattern's seed.
        pattern: u8,
    }

    /// RECEIVE from another actor into a region of this one: to be started before the other one sends.
    RdmaReceive {
        /// The other actor.
        from: String,
        /// This actor's region.
        mr: Handle,
        /// Offset in the region.
        at_kib: u64,
        /// Length.
        len_kib: u64,
    }

    /// The uverbs file of this actor's RDMA context (`ibv_context.cmd_fd`) as a descriptor: the very number
    /// that libibverbs uses, no duplicate. Its value is the number.
    UverbsFd {}

    /// ibv_get_async_event(3), acknowledged: waits for what the device tells this context beside completions
    /// (a port that goes down, a queue pair's error), and `shows` its name, without IBV_EVENT_.
    AsyncEvent {}

    /// ibv_close_device(3), with all that is left in it: the kernel destroys it (uverbs_close).
    RdmaClose {}

    /// ibv_open_device(3) of the guest's device once more, with a protection domain and a completion queue:
    /// from now on this is the actor's context, without queue pairs. After [`RdmaClose`], so that its uverbs
    /// file is younger than other descriptors; after execve(2); or in a fork's child, where the inherited
    /// context stays open beside it.
    RdmaOpen {}

    /// `rdma link delete` of the guest's device of the case's provider. Returns when nobody has it open.
    LinkDelete {}

    /// `rdma link add` of the guest's device of the case's provider, after [`LinkDelete`].
    LinkAdd {}
}
