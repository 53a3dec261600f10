/* The C library's own allocation here: base/mem.h is made to fail by tests of who asks. */
#include "net/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX_BYTES = 256 * 1024, BODY_MAX_BYTES = 128 << 20, WAITING = 64 };

struct connection {
    struct server *server;
    int fd;
    char *bytes; /* what came and was not used yet */
    size_t len_bytes, capacity_bytes;
    struct connection *next;
};

struct server {
    int fd, port;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopping;
    server_handler handler;
    void *context;
    struct connection *connections;
    int64_t requests;
    int accepted, open, most_open;
};

/* ---- reading a request ---- */

static bool receive_more(struct connection *connection)
{
    if (connection->len_bytes + 65536 > connection->capacity_bytes) {
        connection->capacity_bytes = 2 * connection->capacity_bytes + 65536;
        connection->bytes = realloc(connection->bytes, connection->capacity_bytes);
    }
    ssize_t got = recv(connection->fd, connection->bytes + connection->len_bytes, 65535, 0);
    if (got <= 0) {
        return false;
    }
    connection->len_bytes += (size_t)got;
    connection->bytes[connection->len_bytes] = '\0';
    return true;
}

/* Bytes up to and with the empty line; 0: the connection ended, or they are too many. */
static size_t receive_head(struct connection *connection)
{
    for (;;) {
        char *end = connection->len_bytes > 0
                        ? memmem(connection->bytes, connection->len_bytes, "\r\n\r\n", 4)
                        : NULL;
        if (end != NULL) {
            return (size_t)(end - connection->bytes) + 4;
        }
        if (connection->len_bytes > HEAD_MAX_BYTES || !receive_more(connection)) {
            return 0;
        }
    }
}

void server_header(const struct server_request *request, const char *name, char *value,
                   size_t value_bytes)
{
    size_t length = strlen(name);
    value[0] = '\0';
    for (const char *line = request->headers; line != NULL && *line != '\0';) {
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            const char *begin = line + length + 1 + strspn(line + length + 1, " ");
            snprintf(value, value_bytes, "%.*s", (int)strcspn(begin, "\r\n"), begin);
            return;
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
}

/* Splits the head, which is cut up, into the parts of a request. False: it is none. */
static bool parse_head(char *head, struct server_request *request)
{
    char *rest = head;
    char *line = strsep(&rest, "\n");
    request->method = strsep(&line, " ");
    char *target = line != NULL ? strsep(&line, " ") : NULL;
    if (target == NULL || line == NULL || rest == NULL) {
        return false;
    }
    request->path = strsep(&target, "?");
    request->query = target != NULL ? target : "";
    request->headers = rest;
    return true;
}

/* ---- sending an answer ---- */

/* False: the server stops. */
static bool wait_for(struct server *server, double seconds)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    double whole = floor(seconds);
    end.tv_sec += (time_t)whole;
    end.tv_nsec += (long)((seconds - whole) * 1e9);
    end.tv_sec += end.tv_nsec / 1000000000;
    end.tv_nsec %= 1000000000;
    pthread_mutex_lock(&server->lock);
    while (!server->stopping &&
           pthread_cond_timedwait(&server->changed, &server->lock, &end) != ETIMEDOUT) {
    }
    bool goes_on = !server->stopping;
    pthread_mutex_unlock(&server->lock);
    return goes_on;
}

static void wait_for_stop(struct server *server)
{
    while (wait_for(server, 3600)) {
    }
}

static bool send_all(int fd, const char *bytes, size_t len_bytes)
{
    while (len_bytes > 0) {
        ssize_t sent = send(fd, bytes, len_bytes, MSG_NOSIGNAL);
        if (sent <= 0) {
            return false;
        }
        bytes += sent;
        len_bytes -= (size_t)sent;
    }
    return true;
}

static bool send_piece(int fd, const struct server_answer *answer, const char *bytes,
                       size_t len_bytes)
{
    char size[32];
    if (!answer->chunked) {
        return send_all(fd, bytes, len_bytes);
    }
    snprintf(size, sizeof(size), answer->bad_chunks ? "no chunk\r\n" : "%zx\r\n", len_bytes);
    return send_all(fd, size, strlen(size)) && send_all(fd, bytes, len_bytes) &&
           send_all(fd, "\r\n", 2);
}

/* The body in pieces, up to where it is to end. False: the connection is not to be used again. */
static bool send_body(struct connection *connection, const struct server_answer *answer)
{
    struct server *server = connection->server;
    int64_t total = answer->repeat < 0
                        ? INT64_MAX
                        : (int64_t)answer->body_bytes * (answer->repeat > 0 ? answer->repeat : 1);
    bool ends_early = answer->cut || answer->stall;
    int64_t last = ends_early && answer->end_bytes < total ? answer->end_bytes : total;
    int64_t sent = 0;
    while (sent < last && answer->body_bytes > 0) {
        size_t offset = (size_t)(sent % (int64_t)answer->body_bytes);
        size_t length = answer->body_bytes - offset;
        if (answer->piece_bytes > 0 && answer->piece_bytes < length) {
            length = answer->piece_bytes;
        }
        length = (int64_t)length < last - sent ? length : (size_t)(last - sent);
        if ((sent > 0 && answer->piece_delay_s > 0 && !wait_for(server, answer->piece_delay_s)) ||
            !send_piece(connection->fd, answer, answer->body + offset, length)) {
            return false;
        }
        sent += (int64_t)length;
    }
    if (answer->stall) {
        wait_for_stop(server);
    }
    if (ends_early) {
        return false;
    }
    return !answer->chunked || send_all(connection->fd, "0\r\n\r\n", 5);
}

/* False: the connection is not to be used again. */
static bool send_answer(struct connection *connection, struct server_answer *answer)
{
    if (answer->body != NULL && answer->body_bytes == 0) {
        answer->body_bytes = strlen(answer->body);
    }
    if (answer->delay_s > 0 && !wait_for(connection->server, answer->delay_s)) {
        return false;
    }
    if (answer->end_bytes < 0) {
        if (answer->stall) {
            wait_for_stop(connection->server);
        }
        return false;
    }
    if (answer->raw) {
        send_body(connection, answer);
        return false;
    }
    char length[64] = "Transfer-Encoding: chunked";
    bool ends_with_connection = !answer->chunked && answer->repeat < 0;
    if (!answer->chunked) {
        int64_t times = answer->repeat > 0 ? answer->repeat : 1;
        snprintf(length, sizeof(length), "Content-Length: %lld",
                 (long long)answer->body_bytes * (long long)times);
    }
    char head[2048];
    snprintf(head, sizeof(head), "HTTP/1.1 %d Scripted\r\nContent-Type: %s\r\n%s%s\r\n\r\n",
             answer->code != 0 ? answer->code : 200,
             answer->content_type != NULL ? answer->content_type : "application/json",
             answer->headers, ends_with_connection ? "Connection: close" : length);
    return send_all(connection->fd, head, strlen(head)) && send_body(connection, answer) &&
           !ends_with_connection;
}

/* ---- connections ---- */

/* Asks the handler, and counts. */
static void ask_handler(struct server *server, struct server_request *request,
                        struct server_answer *answer)
{
    pthread_mutex_lock(&server->lock);
    request->number = ++server->requests;
    server->open++;
    server->most_open = server->open > server->most_open ? server->open : server->most_open;
    server->handler(server->context, request, answer);
    pthread_mutex_unlock(&server->lock);
}

/* False: the connection is over. */
static bool serve_request(struct connection *connection)
{
    struct server_request request = {0};
    struct server_answer answer = {0};
    size_t head_bytes = receive_head(connection);
    if (head_bytes == 0) {
        return false;
    }
    char *head = strndup(connection->bytes, head_bytes);
    char length[32] = "";
    bool goes_on = parse_head(head, &request);
    if (goes_on) {
        server_header(&request, "Content-Length", length, sizeof(length));
    }
    request.body_bytes = strtoul(length, NULL, 10);
    goes_on = goes_on && request.body_bytes <= BODY_MAX_BYTES;
    while (goes_on && connection->len_bytes < head_bytes + request.body_bytes) {
        goes_on = receive_more(connection);
    }
    if (goes_on) {
        char *body = strndup(connection->bytes + head_bytes, request.body_bytes);
        request.body = body;
        ask_handler(connection->server, &request, &answer);
        goes_on = send_answer(connection, &answer);
        pthread_mutex_lock(&connection->server->lock);
        connection->server->open--;
        pthread_mutex_unlock(&connection->server->lock);
        size_t used = head_bytes + request.body_bytes;
        connection->len_bytes -= used;
        memmove(connection->bytes, connection->bytes + used, connection->len_bytes + 1);
        free(body);
        free(answer.body);
    }
    free(head);
    return goes_on;
}

static void *serve_connection(void *argument)
{
    struct connection *connection = argument;
    struct server *server = connection->server;
    while (serve_request(connection)) {
    }
    pthread_mutex_lock(&server->lock);
    struct connection **place = &server->connections;
    while (*place != connection) {
        place = &(*place)->next;
    }
    *place = connection->next;
    close(connection->fd);
    free(connection->bytes);
    free(connection);
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

static void open_connection(struct server *server, int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct connection *connection = calloc(1, sizeof(*connection));
    connection->server = server;
    connection->fd = fd;
    pthread_mutex_lock(&server->lock);
    server->accepted++;
    connection->next = server->connections;
    server->connections = connection;
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve_connection, connection) == 0) {
        pthread_detach(thread);
    } else {
        server->connections = connection->next;
        close(fd);
        free(connection);
    }
    pthread_mutex_unlock(&server->lock);
}

static void *accept_connections(void *argument)
{
    struct server *server = argument;
    for (;;) {
        int fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC);
        pthread_mutex_lock(&server->lock);
        bool stopping = server->stopping;
        pthread_mutex_unlock(&server->lock);
        if (stopping) {
            if (fd >= 0) {
                close(fd);
            }
            return NULL;
        }
        if (fd >= 0) {
            open_connection(server, fd);
        }
    }
}

/* ---- start and stop ---- */

static bool listen_anywhere(struct server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server->fd < 0 || bind(server->fd, (struct sockaddr *)&address, length) != 0 ||
        listen(server->fd, WAITING) != 0 ||
        getsockname(server->fd, (struct sockaddr *)&address, &length) != 0) {
        return false;
    }
    server->port = ntohs(address.sin_port);
    return true;
}

struct server *server_start(server_handler handler, void *context)
{
    struct server *server = calloc(1, sizeof(*server));
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&server->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&server->lock, NULL);
    server->handler = handler;
    server->context = context;
    if (!listen_anywhere(server) ||
        pthread_create(&server->thread, NULL, accept_connections, server) != 0) {
        if (server->fd >= 0) {
            close(server->fd);
        }
        free(server);
        return NULL;
    }
    return server;
}

void server_stop(struct server *server)
{
    if (server == NULL) {
        return;
    }
    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    shutdown(server->fd, SHUT_RDWR);
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    pthread_join(server->thread, NULL);
    pthread_mutex_lock(&server->lock);
    for (struct connection *one = server->connections; one != NULL; one = one->next) {
        shutdown(one->fd, SHUT_RDWR);
    }
    while (server->connections != NULL) {
        pthread_cond_wait(&server->changed, &server->lock);
    }
    pthread_mutex_unlock(&server->lock);
    close(server->fd);
    pthread_mutex_destroy(&server->lock);
    pthread_cond_destroy(&server->changed);
    free(server);
}

int server_port(const struct server *server)
{
    return server->port;
}

int64_t server_count(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    int64_t count = server->requests;
    pthread_mutex_unlock(&server->lock);
    return count;
}

int server_most_open(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    int most = server->most_open;
    pthread_mutex_unlock(&server->lock);
    return most;
}

int server_connections(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    int count = server->accepted;
    pthread_mutex_unlock(&server->lock);
    return count;
}
