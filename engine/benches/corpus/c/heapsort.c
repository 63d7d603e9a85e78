/* Heapsort of doubles: loads at computed addresses, branches that cannot be predicted. */
#include "corpus.h"

static void sift(double *a, size_t root, size_t end) {
    double moving = a[root];
    for (size_t child; (child = 2 * root + 1) < end; root = child) {
        if (child + 1 < end && a[child] < a[child + 1])
            child++;
        if (!(moving < a[child]))
            break;
        a[root] = a[child];
    }
    a[root] = moving;
}

static void heapsort_doubles(double *a, size_t n) {
    for (size_t i = n / 2; i-- > 0;)
        sift(a, i, n);
    for (size_t end = n; end-- > 1;) {
        double greatest = a[0];
        a[0] = a[end];
        a[end] = greatest;
        sift(a, 0, end);
    }
}

int main(int argc, char **argv) {
    size_t n = work(argc, argv, 3000000);
    double *a = malloc(n * sizeof *a);
    if (!a)
        return 1;
    for (size_t i = 0; i < n; i++)
        a[i] = (double)(random64() >> 11) * 0x1p-53;
    heapsort_doubles(a, n);
    for (size_t i = 1; i < n; i++)
        if (a[i - 1] > a[i])
            return 2;
    printf("%.17g %.17g %.17g\n", a[0], a[n / 2], a[n - 1]);
    free(a);
    return 0;
}
