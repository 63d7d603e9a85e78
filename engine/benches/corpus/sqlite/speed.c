/* A day in the life of SQLite, for benchmarks: bulk inserts, indexes, joins, aggregates, updates, text
 * search, deletion, a recursive query, vacuum. Prints what each part found, so that results compare. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sqlite3.h"

static sqlite3 *db;

static void fail(const char *what) {
    fprintf(stderr, "speed: %s: %s\n", what, sqlite3_errmsg(db));
    exit(1);
}

static void execute(const char *sql) {
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail(sql);
}

static sqlite3_stmt *prepare(const char *sql) {
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        fail(sql);
    return statement;
}

/* Runs a query and prints how many rows it gave, and the last of them. */
static void query(const char *label, const char *sql) {
    sqlite3_stmt *statement = prepare(sql);
    int rows = 0, status, i;
    char last[256] = "";
    while ((status = sqlite3_step(statement)) == SQLITE_ROW) {
        size_t used = 0;
        rows++;
        for (i = 0; i < sqlite3_column_count(statement) && used < sizeof last; i++) {
            const unsigned char *text = sqlite3_column_text(statement, i);
            used += (size_t)snprintf(last + used, sizeof last - used, " %s", text ? (const char *)text : "-");
        }
    }
    if (status != SQLITE_DONE)
        fail(sql);
    sqlite3_finalize(statement);
    printf("%s: %d rows, last%s\n", label, rows, last);
}

static unsigned long long state = 0x9e3779b97f4a7c15u;

static unsigned random_number(void) {
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (unsigned)(state * 0x2545f4914f6cdd1du >> 33);
}

static void words(char *out, size_t size, unsigned n) {
    static const char *const word[] = {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "hundred", "thousand", "million", "and", "of", "less", "zero"};
    size_t used = 0;
    out[0] = 0;
    while (n-- && used < size - 12)
        used += (size_t)snprintf(out + used, size - used, "%s%s", used ? " " : "", word[random_number() % 17]);
}

static void fill(const char *table, int rows) {
    char sql[128], text[160];
    sqlite3_stmt *statement;
    int i;
    snprintf(sql, sizeof sql, "INSERT INTO %s VALUES (?, ?, ?, ?)", table);
    execute("BEGIN");
    statement = prepare(sql);
    for (i = 1; i <= rows; i++) {
        words(text, sizeof text, 3 + random_number() % 6);
        sqlite3_bind_int(statement, 1, i);
        sqlite3_bind_int(statement, 2, (int)(random_number() % (unsigned)rows));
        sqlite3_bind_double(statement, 3, random_number() % 1000000 / 64.0);
        sqlite3_bind_text(statement, 4, text, -1, SQLITE_TRANSIENT);
        if (sqlite3_step(statement) != SQLITE_DONE)
            fail(sql);
        sqlite3_reset(statement);
    }
    sqlite3_finalize(statement);
    execute("COMMIT");
}

static void look_up(int rows) {
    sqlite3_stmt *statement = prepare("SELECT x, t FROM a WHERE y = ?");
    unsigned long long sum = 0;
    int i;
    for (i = 0; i < rows; i++) {
        sqlite3_bind_int(statement, 1, i);
        while (sqlite3_step(statement) == SQLITE_ROW)
            sum = sum * 31 + (unsigned)sqlite3_column_int(statement, 0) + (unsigned)sqlite3_column_bytes(statement, 1);
        sqlite3_reset(statement);
    }
    sqlite3_finalize(statement);
    printf("look-ups: %llu\n", sum);
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : ":memory:";
    int rows = argc > 2 ? atoi(argv[2]) : 40000;
    if (strcmp(path, ":memory:"))
        remove(path);
    if (sqlite3_open(path, &db) != SQLITE_OK)
        fail("open");
    execute("PRAGMA synchronous = off; PRAGMA journal_mode = memory; PRAGMA cache_size = 4000;"
            "CREATE TABLE a(x INTEGER PRIMARY KEY, y INTEGER, z REAL, t TEXT);"
            "CREATE TABLE b(x INTEGER, y INTEGER, z REAL, t TEXT)");
    fill("a", rows);
    fill("b", rows);
    execute("CREATE INDEX a_y ON a(y); CREATE INDEX b_x ON b(x); CREATE INDEX b_t ON b(t, z)");
    look_up(rows);
    query("join", "SELECT a.y % 97 AS g, count(*), round(sum(b.z), 3) FROM a JOIN b ON b.x = a.y GROUP BY g ORDER BY g");
    query("like", "SELECT count(*), round(avg(z), 4) FROM a WHERE t LIKE '%seven%hundred%'");
    query("sort", "SELECT t, x FROM a ORDER BY t DESC, z LIMIT 5000");
    query("range", "SELECT count(*), min(t), max(t) FROM b WHERE t BETWEEN 'million' AND 'of' AND z > 1000");
    execute("UPDATE a SET z = z * 1.5, y = y + 1 WHERE x % 3 = 0;"
            "UPDATE b SET t = upper(t) || ' ' || x WHERE y % 5 = 0;"
            "DELETE FROM a WHERE y % 7 = 3;"
            "INSERT OR REPLACE INTO a SELECT x + 3, y, z, t FROM b WHERE y < 5000");
    query("window", "SELECT x, sum(z) OVER (PARTITION BY y % 50 ORDER BY x ROWS 10 PRECEDING) AS s FROM a ORDER BY s, x");
    query("subquery", "SELECT count(*) FROM a WHERE y IN (SELECT x FROM b WHERE z < 3000) AND length(t) > 20");
    query("recursive", "WITH RECURSIVE n(i, v) AS (SELECT 1, 1 UNION ALL SELECT i + 1, (v * 1103515245 + 12345) % 2147483648 "
                       "FROM n WHERE i < 60000) SELECT count(DISTINCT v % 1000), sum(v) FROM n");
    query("text", "SELECT substr(t, 1, 5) || printf('%05d', count(*)) AS k, group_concat(x % 10, '') FROM a GROUP BY substr(t, 1, 5) "
                  "ORDER BY length(k), k");
    execute("VACUUM");
    query("integrity", "PRAGMA integrity_check");
    sqlite3_close(db);
    if (strcmp(path, ":memory:"))
        remove(path);
    return 0;
}
