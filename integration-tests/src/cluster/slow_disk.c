/*
 * Runs a program whose syncs of files can be held up from outside: slow_disk CONTROL PROGRAM ARGUMENTS...
 *
 * The system hands every fsync and fdatasync of the program to a helper process first, whatever the program is written in. CONTROL is
 * a file of twelve bytes, three native 32-bit numbers that may be changed at any time: whether syncs are held, how many milliseconds
 * each takes longer, and the error that each ends with, 0 for none. Without a sync under way nothing is slower than otherwise.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PENDING_MAX 256

struct control {
    volatile uint32_t hold;
    volatile uint32_t delay_ms;
    volatile uint32_t error;
};

struct pending {
    uint64_t id;
    uint64_t due_ms;
};

static void fail(const char *what) {
    perror(what);
    _exit(125);
}

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void send_fd(int socket, int fd) {
    char byte = 0, space[CMSG_SPACE(sizeof fd)];
    struct iovec part = {&byte, 1};
    struct msghdr message = {0};
    memset(space, 0, sizeof space);
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof space;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(socket, &message, 0) != 1) fail("sendmsg");
}

static int receive_fd(int socket) {
    char byte, space[CMSG_SPACE(sizeof(int))];
    int fd;
    struct iovec part = {&byte, 1};
    struct msghdr message = {0};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof space;
    if (recvmsg(socket, &message, 0) != 1) _exit(0);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL) _exit(0);
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

static void answer(int listener, uint64_t id, uint32_t error) {
    struct seccomp_notif_resp response = {0};
    response.id = id;
    if (error != 0) response.error = -(int)error;
    else response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    /* The caller may have been killed meanwhile. */
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response);
}

/* Answers syncs when they are due, until the program has ended. */
static void supervise(int listener, const struct control *control) {
    struct pending pending[PENDING_MAX];
    size_t count = 0;
    for (;;) {
        struct pollfd wait = {listener, POLLIN, 0};
        if (poll(&wait, 1, count > 0 ? 1 : -1) < 0 && errno != EINTR) return;
        if (wait.revents & POLLIN && count < PENDING_MAX) {
            struct seccomp_notif request;
            memset(&request, 0, sizeof request);
            if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) == 0) {
                pending[count].id = request.id;
                pending[count].due_ms = now_ms() + control->delay_ms;
                count++;
            }
        } else if (wait.revents & (POLLHUP | POLLERR)) {
            return;
        }
        for (size_t i = 0; i < count;) {
            if (control->hold || now_ms() < pending[i].due_ms) {
                i++;
                continue;
            }
            answer(listener, pending[i].id, control->error);
            pending[i] = pending[--count];
        }
    }
}

static int install_filter(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fsync, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fdatasync, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
    };
    struct sock_fprog program = {sizeof code / sizeof code[0], code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("no_new_privs");
    int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0) fail("seccomp");
    return listener;
}

int main(int argc, char **argv) {
    int sockets[2];
    if (argc < 3) return 125;
    int file = open(argv[1], O_RDWR | O_CLOEXEC);
    if (file < 0) fail(argv[1]);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) fail("socketpair");
    pid_t helper = fork();
    if (helper < 0) fail("fork");
    if (helper == 0) {
        struct control *control = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, file, 0);
        if (control == MAP_FAILED) fail("mmap");
        close(sockets[1]);
        setsid();
        int listener = receive_fd(sockets[0]);
        supervise(listener, control);
        _exit(0);
    }
    close(sockets[0]);
    int listener = install_filter();
    send_fd(sockets[1], listener);
    close(listener);
    close(sockets[1]);
    execv(argv[2], argv + 2);
    fail(argv[2]);
}
