#include "base/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#if __has_include(<linux/landlock.h>)
#include <linux/landlock.h>
#define HAVE_LANDLOCK 1
#endif

/* ---- files ---- */

#ifdef HAVE_LANDLOCK
enum {
    READ_RIGHTS =
        LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR
};
static const uint64_t all_rights =
    (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1; /* of the first version */
static const uint64_t file_rights =
    LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;

/* Gives rights to what lies below a path; one that does not exist is passed over. */
static enum status allow(int ruleset, const char *path, uint64_t rights, struct error *err)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = rights};
    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0) {
        return errno == ENOENT || errno == ENOTDIR ? STATUS_OK
                                                   : FAIL_ERRNO(err, "cannot open %s", path);
    }
    long added = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    int failure = errno;
    close(rule.parent_fd);
    errno = failure;
    return added == 0 ? STATUS_OK : FAIL_ERRNO(err, "cannot give access to %s", path);
}

static enum status allow_all(int ruleset, const struct confine_options *options, struct error *err)
{
    static const char *const programs[] = {"/usr", "/bin", "/lib", "/lib64", NULL};
    static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/urandom", NULL};
    static const char *const settings[] = {"/etc/ld.so.cache", "/etc/localtime", NULL};
    for (int i = 0; programs[i] != NULL; i++) {
        TRY(allow(ruleset, programs[i], READ_RIGHTS, err));
    }
    for (int i = 0; options->readable != NULL && options->readable[i] != NULL; i++) {
        TRY(allow(ruleset, options->readable[i], READ_RIGHTS, err));
    }
    for (int i = 0; devices[i] != NULL; i++) {
        TRY(allow(ruleset, devices[i], all_rights & file_rights, err));
    }
    for (int i = 0; settings[i] != NULL; i++) {
        TRY(allow(ruleset, settings[i], LANDLOCK_ACCESS_FS_READ_FILE, err));
    }
    return allow(ruleset, options->folder, all_rights, err);
}

static enum status confine_files(const struct confine_options *options, struct error *err)
{
    const struct landlock_ruleset_attr handled = {.handled_access_fs = all_rights};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof(handled), 0);
    if (ruleset < 0) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "this kernel cannot keep a program from other files (Landlock: %s)",
                    strerror(errno));
    }
    enum status status = allow_all(ruleset, options, err);
    if (status == STATUS_OK && syscall(SYS_landlock_restrict_self, ruleset, 0) != 0) {
        status =
            FAIL(err, STATUS_UNSUPPORTED, "Landlock cannot be switched on: %s", strerror(errno));
    }
    close(ruleset);
    return status;
}
#else
static enum status confine_files(const struct confine_options *options, struct error *err)
{
    (void)options;
    return FAIL(err, STATUS_UNSUPPORTED, "this program was built without Landlock (Linux 5.13)");
}
#endif

/* ---- calls of the kernel ---- */

#if defined(__x86_64__)
#define THIS_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef THIS_ARCHITECTURE
/* What reaches beyond the process: the network, other processes, the kernel's own doors. */
static const int refused[] = {
    SYS_socket,
    SYS_socketpair,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kill,
    SYS_tkill,
    SYS_tgkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_prlimit64,
    SYS_setpriority,
    SYS_sched_setaffinity,
    SYS_mount,
    SYS_umount2,
    SYS_unshare,
    SYS_setns,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_shmget,
    SYS_shmat,
    SYS_msgget,
    SYS_semget,
    SYS_mq_open,
    SYS_userfaultfd,
    SYS_name_to_handle_at,
    SYS_open_by_handle_at,
    424 /* pidfd_send_signal */,
    425 /* io_uring_setup: it can open sockets */,
    434 /* pidfd_open */,
    438 /* pidfd_getfd */,
};
enum { REFUSED_COUNT = sizeof(refused) / sizeof(refused[0]), X32_BIT = 0x40000000 };

static enum status confine_calls(struct error *err)
{
    struct sock_filter code[REFUSED_COUNT + 8];
    size_t n = 0;
    const struct sock_filter load_architecture =
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    const struct sock_filter load_number =
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    const struct sock_filter end = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    const struct sock_filter deny = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    code[n++] = load_architecture;
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCHITECTURE, 1, 0);
    code[n++] = end;
    code[n++] = load_number;
    code[n++] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, REFUSED_COUNT + 1, 0);
    for (size_t i = 0; i < REFUSED_COUNT; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)refused[i],
                                                 (uint8_t)(REFUSED_COUNT - i), 0);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = deny;
    const struct sock_fprog program = {.len = (unsigned short)n, .filter = code};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "this kernel cannot cut a program off the network (seccomp: %s)",
                    strerror(errno));
    }
    return STATUS_OK;
}
#else
static enum status confine_calls(struct error *err)
{
    return FAIL(err, STATUS_UNSUPPORTED, "programs can be confined on x86-64 and AArch64 only");
}
#endif

/* ---- limits ---- */

static enum status limit(__rlimit_resource_t resource, double most, const char *what,
                         struct error *err)
{
    struct rlimit limits;
    if (getrlimit(resource, &limits) != 0) {
        return FAIL_ERRNO(err, "cannot read the limit of %s", what);
    }
    rlim_t wanted = (rlim_t)fmin(ceil(most), 1e18);
    limits.rlim_cur = limits.rlim_max = wanted < limits.rlim_max ? wanted : limits.rlim_max;
    return setrlimit(resource, &limits) == 0 ? STATUS_OK : FAIL_ERRNO(err, "cannot limit %s", what);
}

static enum status confine_use(const struct confine_options *options, struct error *err)
{
    TRY(limit(RLIMIT_CPU, options->seconds, "processor time", err));
    TRY(limit(RLIMIT_AS, (double)options->memory_bytes, "memory", err));
    TRY(limit(RLIMIT_FSIZE, (double)options->file_bytes, "the size of files", err));
    TRY(limit(RLIMIT_NOFILE, 64.0, "open files", err));
    return limit(RLIMIT_CORE, 0.0, "core files", err);
}

static enum status set_environment(const char *folder, struct error *err)
{
    bool set = clearenv() == 0 && setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1) == 0 &&
               setenv("LANG", "C.UTF-8", 1) == 0 && setenv("HOME", folder, 1) == 0 &&
               setenv("TMPDIR", folder, 1) == 0;
    return set ? STATUS_OK : FAIL(err, STATUS_NO_MEMORY, "no memory for an environment");
}

enum status confine_self(const struct confine_options *options, struct error *err)
{
    if (chdir(options->folder) != 0) {
        return FAIL_ERRNO(err, "cannot enter %s", options->folder);
    }
    TRY(set_environment(options->folder, err));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "this kernel cannot keep a program from new privileges: %s", strerror(errno));
    }
    TRY(confine_use(options, err));
    TRY(confine_files(options, err));
    return confine_calls(err);
}
