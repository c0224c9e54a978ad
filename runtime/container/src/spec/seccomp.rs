//! The default system call filter: what containerd allows, refused otherwise with EPERM.
//!
//! The names are facts of that profile (containerd `contrib/seccomp`, `DefaultProfile`); newer calls that only repeat
//! an allowed one with other arguments are added, `io_uring_*` is left out as containerd does since 2.0, and sockets of
//! family AF_VSOCK (a way to the hypervisor) are refused. A name that the runtime's libseccomp does not know is
//! skipped by it, so the table may be newer than the machine.
//!
//! Not here: a user's own profile, and privileged containers, which get no filter.
use std::collections::HashSet;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// Allowed for everyone, with any arguments. `ptrace` since Linux 4.8 cannot be used to bypass the filter.
const ALWAYS: &str = "
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock
    fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu
    getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64
    io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr llistxattr lremovexattr lseek
    lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat
    mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync
    munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv
    preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead
    readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr rename
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
    seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto
    set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr shmat shmctl shmdt shmget
    shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs
    statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname
    unlink unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
";

/// Allowed only on one architecture of the host.
const BY_ARCHITECTURE: &[(&str, &str)] = &[
    ("x86_64", "arch_prctl modify_ldt"),
    ("aarch64", "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2"),
    ("riscv64", "riscv_flush_icache riscv_hwprobe"),
    ("s390x", "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    ("powerpc64", "swapcontext sync_file_range2"),
];

/// Allowed with a capability in the bounding set.
const BY_CAPABILITY: &[(Capability, &str)] = &[
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// Values of `personality` that only choose an ABI: Linux, Linux with a 3 GB space, UNAME26, both, "tell me".
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// CLONE_NEWNS | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET | NEWCGROUP: new namespaces need CAP_SYS_ADMIN.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Address family of virtual machine sockets (`linux/socket.h`).
const AF_VSOCK: u64 = 40;

/// `ENOSYS`, so that libc falls back from `clone3` (whose flags no filter can read) to `clone`.
const ENOSYS: u32 = 38;

/// The filter for a container whose bounding set is `bounding`.
pub(crate) fn default_profile(bounding: &HashSet<Capability>) -> LinuxSeccomp {
    let mut rules = vec![allow(ALWAYS, Vec::new())];
    rules.push(allow("socket", vec![argument(0, AF_VSOCK, None, LinuxSeccompOperator::ScmpCmpNe)]));
    for value in PERSONALITIES {
        rules.push(allow("personality", vec![argument(0, value, None, LinuxSeccompOperator::ScmpCmpEq)]));
    }
    for (architecture, names) in BY_ARCHITECTURE {
        if *architecture == std::env::consts::ARCH {
            rules.push(allow(names, Vec::new()));
        }
    }
    for (capability, names) in BY_CAPABILITY {
        if bounding.contains(capability) {
            rules.push(allow(names, Vec::new()));
        }
    }
    if !bounding.contains(&Capability::SysAdmin) {
        let flags = if cfg!(target_arch = "s390x") { 1 } else { 0 };
        let no_namespaces = argument(flags, CLONE_NAMESPACES, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq);
        rules.push(allow("clone", vec![no_namespaces]));
        rules.push(
            LinuxSyscallBuilder::default()
                .names(["clone3".to_owned()])
                .action(LinuxSeccompAction::ScmpActErrno)
                .errno_ret(ENOSYS)
                .build()
                .expect("a rule has no required field that is not set"),
        );
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .architectures(architectures())
        .syscalls(rules)
        .build()
        .expect("a profile has no required field that is not set")
}

/// The host's architecture with the older one its kernel also runs.
///
/// containerd lists x32 too. Nobody's programs use it, distributions switch it off, and every architecture more makes
/// runc compile the whole table once more: 3.5 ms of each start (runc 1.1.5, libseccomp 2.5.4).
fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        "riscv64" => vec![Arch::ScmpArchRiscv64],
        "s390x" => vec![Arch::ScmpArchS390x, Arch::ScmpArchS390],
        "powerpc64" => vec![Arch::ScmpArchPpc64le],
        _ => Vec::new(),
    }
}

fn allow(names: &str, arguments: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    let rule = LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow);
    let rule = if arguments.is_empty() { rule } else { rule.args(arguments) };
    rule.build().expect("a rule has no required field that is not set")
}

fn argument(index: usize, value: u64, second: Option<u64>, op: LinuxSeccompOperator) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
    let argument = match second {
        Some(second) => argument.value_two(second),
        None => argument,
    };
    argument.build().expect("an argument has no required field that is not set")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &LinuxSeccomp) -> HashSet<String> {
        let rules = profile.syscalls().as_ref().unwrap();
        rules
            .iter()
            .filter(|rule| rule.action() == LinuxSeccompAction::ScmpActAllow && rule.args().is_none())
            .flat_map(|rule| rule.names().clone())
            .collect()
    }

    #[test]
    fn calls_that_reach_the_kernel_itself_need_their_capability() {
        let plain = allowed(&default_profile(&HashSet::new()));
        for name in [
            "mount",
            "bpf",
            "init_module",
            "unshare",
            "setns",
            "open_by_handle_at",
            "io_uring_setup",
            "keyctl",
        ] {
            assert!(!plain.contains(name), "{name}");
        }
        for name in ["read", "openat2", "execve", "futex", "clock_gettime", "statx"] {
            assert!(plain.contains(name), "{name}");
        }
        let admin = allowed(&default_profile(&HashSet::from([Capability::SysAdmin])));
        assert!(admin.contains("mount") && admin.contains("clone3"));
    }

    #[test]
    fn clone3_says_enosys_so_that_threads_still_start() {
        let profile = default_profile(&HashSet::new());
        let rule =
            profile.syscalls().as_ref().unwrap().iter().find(|rule| rule.names() == &["clone3"]).unwrap();
        assert_eq!(rule.errno_ret(), Some(ENOSYS));
    }

    #[test]
    fn no_name_is_in_the_table_twice() {
        let names: Vec<&str> = ALWAYS.split_whitespace().collect();
        let set: HashSet<&str> = names.iter().copied().collect();
        assert_eq!(set.len(), names.len());
        assert!(names.is_sorted());
    }
}
