//! A filter of system calls: no sockets, no other processes' memory, and nothing that loads code
//! into the kernel or moves the process into another view of the machine.

use libc::{
    SYS_accept, SYS_accept4, SYS_add_key, SYS_bind, SYS_bpf, SYS_chroot, SYS_connect,
    SYS_delete_module, SYS_finit_module, SYS_fsopen, SYS_init_module, SYS_io_uring_setup,
    SYS_kexec_load, SYS_keyctl, SYS_listen, SYS_mount, SYS_move_mount, SYS_open_by_handle_at,
    SYS_open_tree, SYS_perf_event_open, SYS_pidfd_getfd, SYS_pivot_root, SYS_process_vm_readv,
    SYS_process_vm_writev, SYS_ptrace, SYS_reboot, SYS_request_key, SYS_setns, SYS_socket,
    SYS_swapon, SYS_umount2, SYS_unshare, SYS_userfaultfd,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Calls that fail with "not permitted". A pair of connected sockets, which reach a helper, may be
/// made.
const DENIED: [libc::c_long; 33] = [
    SYS_accept,
    SYS_accept4,
    SYS_add_key,
    SYS_bind,
    SYS_bpf,
    SYS_chroot,
    SYS_connect,
    SYS_delete_module,
    SYS_finit_module,
    SYS_fsopen,
    SYS_init_module,
    SYS_io_uring_setup,
    SYS_kexec_load,
    SYS_keyctl,
    SYS_listen,
    SYS_mount,
    SYS_move_mount,
    SYS_open_by_handle_at,
    SYS_open_tree,
    SYS_perf_event_open,
    SYS_pidfd_getfd,
    SYS_pivot_root,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_ptrace,
    SYS_reboot,
    SYS_request_key,
    SYS_setns,
    SYS_socket,
    SYS_swapon,
    SYS_umount2,
    SYS_unshare,
    SYS_userfaultfd,
];

/// Applies the filter to the calling thread and what it starts. False if the kernel does not.
pub(super) fn restrict() -> bool {
    program().is_some_and(|program| apply_filter(&program).is_ok())
}

fn program() -> Option<BpfProgram> {
    let not_permitted = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let denied = DENIED.into_iter().map(|call| (call, Vec::new())).collect();
    // `None` on a processor without an implementation.
    let processor = std::env::consts::ARCH.try_into().ok()?;
    let filter = SeccompFilter::new(denied, SeccompAction::Allow, not_permitted, processor).ok()?;
    filter.try_into().ok()
}
