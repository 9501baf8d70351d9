// The clock of scripts/bench --peers: it does the work inside a mount and says how long it took.
//
//   probe serve               reads orders from standard input and answers each with one line
//   probe turns ROUNDS FILE   starts the commands of FILE in turn, and prints a line for each start
//
// It is one static program without the image's libraries, so that it runs in every container and reads nothing of it but
// what it is told to. Orders, with their answers ("SECONDS NUMBER", or "error WORDS"):
//
//   read READERS DIRECTORY…   reads every file to its end; the number is the sum of bytes
//   walk DIRECTORY…           lists everything and asks for its attributes; the number is of entries
//   open COUNT DIRECTORY…     opens, reads 4 KiB of, and closes COUNT files; the number is of files
//   exec PROGRAM WORD…        runs a program to its end; words may not hold blanks, `~` stands for one
//
// A line of FILE is NAME, a tab, how many to start at once, a tab, and the command; `%` in it is the round's number.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WORDS = 256, MAX_READERS = 64, MAX_CROWD = 256, BUFFER_BYTES = 128 * 1024, SETTLE_MICROSECONDS = 5000 };

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void die(const char *what) {
    printf("error %s: %s\n", what, strerror(errno));
    fflush(stdout);
    exit(1);
}

// ---- a list of files that grows while readers take from it

static struct {
    char **paths;
    size_t length, room, next;
    int complete;
    pthread_mutex_t lock;
    pthread_cond_t grown;
} list = {.lock = PTHREAD_MUTEX_INITIALIZER, .grown = PTHREAD_COND_INITIALIZER};

static void list_clear(void) {
    for (size_t i = 0; i < list.length; i++) free(list.paths[i]);
    list.length = list.next = 0;
    list.complete = 0;
}

static void list_add(const char *path) {
    pthread_mutex_lock(&list.lock);
    if (list.length == list.room) {
        list.room = list.room ? list.room * 2 : 4096;
        if (!(list.paths = realloc(list.paths, list.room * sizeof *list.paths))) die("memory");
    }
    if (!(list.paths[list.length++] = strdup(path))) die("memory");
    pthread_cond_signal(&list.grown);
    pthread_mutex_unlock(&list.lock);
}

static const char *list_take(void) {
    const char *path = NULL;
    pthread_mutex_lock(&list.lock);
    while (list.next == list.length && !list.complete) pthread_cond_wait(&list.grown, &list.lock);
    if (list.next < list.length) path = list.paths[list.next++];
    pthread_mutex_unlock(&list.lock);
    return path;
}

// Lists a directory and what is below it, on one file system, and counts entries. Files go to the list if it is asked for.
static long walk(const char *directory, int add_files, dev_t device) {
    char path[4096];
    long count = 0;
    DIR *open_directory = opendir(directory);
    if (!open_directory) return 0; // Root's own directories are closed to others, in every way of serving them.
    for (struct dirent *entry; (entry = readdir(open_directory));) {
        struct stat is;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (snprintf(path, sizeof path, "%s/%s", directory, entry->d_name) >= (int)sizeof path) continue;
        if (lstat(path, &is)) die(path);
        count++;
        if (S_ISDIR(is.st_mode) && is.st_dev == device) count += walk(path, add_files, device);
        if (S_ISREG(is.st_mode) && is.st_dev == device && add_files) list_add(path);
    }
    closedir(open_directory);
    return count;
}

static long walk_all(char **directories, int add_files) {
    long count = 0;
    for (; *directories; directories++) {
        struct stat is;
        if (!stat(*directories, &is)) count += walk(*directories, add_files, is.st_dev);
    }
    return count;
}

static void *reader(void *sum) {
    char *buffer = malloc(BUFFER_BYTES);
    for (const char *path; (path = list_take());) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 && errno == EACCES) continue;
        if (fd < 0) die(path);
        ssize_t got;
        while ((got = read(fd, buffer, BUFFER_BYTES)) > 0) *(long *)sum += got;
        if (got < 0) die(path);
        close(fd);
    }
    free(buffer);
    return NULL;
}

static long read_all(int readers, char **directories) {
    pthread_t threads[MAX_READERS];
    long sums[MAX_READERS] = {0}, sum = 0;
    if (readers < 1 || readers > MAX_READERS) die("readers");
    list_clear();
    for (int i = 0; i < readers; i++)
        if (pthread_create(&threads[i], NULL, reader, &sums[i])) die("thread");
    walk_all(directories, 1);
    pthread_mutex_lock(&list.lock);
    list.complete = 1;
    pthread_cond_broadcast(&list.grown);
    pthread_mutex_unlock(&list.lock);
    for (int i = 0; i < readers; i++) {
        pthread_join(threads[i], NULL);
        sum += sums[i];
    }
    return sum;
}

// The files are listed at the first call; each call opens the same ones.
static double open_some(size_t wanted, char **directories, long *opened) {
    char buffer[4096];
    if (!list.length) walk_all(directories, 1);
    double start = seconds();
    *opened = 0;
    for (size_t i = 0; i < list.length && (size_t)*opened < wanted; i++) {
        int fd = open(list.paths[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0) continue;
        if (read(fd, buffer, sizeof buffer) < 0) die(list.paths[i]);
        close(fd);
        ++*opened;
    }
    return seconds() - start;
}

// Starts a program with its output thrown away. Its errors are seen.
static pid_t spawn(char **words, int quiet) {
    pid_t child = vfork();
    if (child < 0) die("fork");
    if (child) return child;
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    if (quiet) dup2(null, 2);
    execvp(words[0], words);
    _exit(127);
}

static int ended(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) die("wait");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int split(char *line, char **words) {
    int count = 0;
    for (char *word = strtok(line, " \n"); word && count < MAX_WORDS - 1; word = strtok(NULL, " \n")) words[count++] = word;
    words[count] = NULL;
    return count;
}

static int serve(void) {
    static char line[65536];
    char *words[MAX_WORDS];
    printf("ready\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!split(line, words)) continue;
        double start = seconds(), took = -1;
        long number = 0;
        if (!strcmp(words[0], "read")) {
            number = read_all(atoi(words[1]), words + 2);
        } else if (!strcmp(words[0], "walk")) {
            number = walk_all(words + 1, 0);
        } else if (!strcmp(words[0], "open")) {
            took = open_some((size_t)atol(words[1]), words + 2, &number);
        } else if (!strcmp(words[0], "exec")) {
            for (char **word = words; *word; word++)
                for (char *at = *word; (at = strchr(at, '~'));) *at = ' ';
            number = ended(spawn(words + 1, 0));
            if (number) {
                printf("error exit code %ld\n", number);
                fflush(stdout);
                continue;
            }
        } else {
            errno = EINVAL;
            die(words[0]);
        }
        printf("%.6f %ld\n", took < 0 ? seconds() - start : took, number);
        fflush(stdout);
    }
    return 0;
}

// One line of the file: the commands start together, and the time is that to the end of the last one.
static void turn(char *line, long round) {
    char text[8192], *words[MAX_WORDS], *name = strtok(line, "\t"), *crowd = strtok(NULL, "\t"), *command = strtok(NULL, "\n");
    size_t at = 0;
    if (!name || !crowd || !command) return;
    for (; *command && at + 24 < sizeof text; command++) {
        if (*command == '%') at += (size_t)snprintf(text + at, sizeof text - at, "%ld", round);
        else text[at++] = *command;
    }
    text[at] = 0;
    split(text, words);
    pid_t children[MAX_CROWD];
    int count = atoi(crowd), code = 0;
    double start = seconds();
    for (int i = 0; i < count && i < MAX_CROWD; i++) children[i] = spawn(words, 1);
    for (int i = 0; i < count && i < MAX_CROWD; i++) {
        int one = ended(children[i]);
        if (one) code = one;
    }
    printf("%s\t%.6f\t%d\n", name, seconds() - start, code);
    usleep(SETTLE_MICROSECONDS);
}

int main(int count, char **words) {
    if (count == 2 && !strcmp(words[1], "serve")) return serve();
    if (count != 4 || strcmp(words[1], "turns")) return 2;
    for (long round = 0; round < atol(words[2]); round++) {
        char line[8192];
        FILE *file = fopen(words[3], "r");
        if (!file) die(words[3]);
        while (fgets(line, sizeof line, file)) turn(line, round);
        fclose(file);
    }
    return 0;
}
