/* Fuzzes the kernels of the accelerated twin against references that cannot be wrong.
 *
 * The buffers are as large as what they hold, so that AddressSanitizer sees every byte read or
 * written beyond it. fuzz/run.py builds this with clang; the input is a mask key of 4 bytes, a
 * byte that moves the buffer away from where malloc puts it, one that says where to cut, and
 * the data.
 *
 * Where there is no libFuzzer, FASTWS_STANDALONE makes this a program that draws its inputs
 * itself. fuzz/neon.sh builds it for another CPU; for this one:
 *
 *     cc -DFASTWS_STANDALONE -g -O1 -fsanitize=address,undefined -Isrc/fastws/_c/kernels \
 *         fuzz/kernels.c -o kernels && ./kernels [inputs [seed]]
 */
#define _DEFAULT_SOURCE /* for MAP_ANONYMOUS */

#include <stdio.h>
#include <stdlib.h>

#include "sets.h"

/* The set that is tested. */
static const fastws_kernels *kernels;

#define MAX_SHIFT 63
/* All cuts are tried in data up to this size, so many of them in larger data. */
#define ALL_CUTS 64

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

/* A copy that ends where its memory does, and begins `shift` bytes after it. */
typedef struct {
    uint8_t *memory;
    uint8_t *data;
} Copy;

/* AddressSanitizer does not see what instructions with masks read and write. So copies are also
 * put between pages that cannot be accessed, at either end of the memory there. */
static enum { ANYWHERE, AT_START, AT_END } place = ANYWHERE;

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>

#define GUARDED ((size_t)64 << 10) /* a multiple of all pages' sizes */
static uint8_t *guarded[4];
static size_t guarded_used;

static void
make_guarded(void)
{
    size_t i;
    for (i = 0; i < sizeof(guarded) / sizeof(guarded[0]); i++) {
        uint8_t *p = mmap(
            NULL, 3 * GUARDED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
        );
        CHECK(p != MAP_FAILED);
        CHECK(mprotect(p, GUARDED, PROT_NONE) == 0);
        CHECK(mprotect(p + 2 * GUARDED, GUARDED, PROT_NONE) == 0);
        guarded[i] = p + GUARDED;
    }
}

static uint8_t *
new_guarded(size_t size)
{
    CHECK(size <= GUARDED && guarded_used < sizeof(guarded) / sizeof(guarded[0]));
    return guarded[guarded_used++] + (place == AT_END ? GUARDED - size : 0);
}

static void
free_guarded(void)
{
    guarded_used--;
}
#else
#define GUARDED ((size_t)0)
static void make_guarded(void) {}
static uint8_t *new_guarded(size_t size) { return malloc(size); }
static void free_guarded(void) {}
#endif

static Copy
copy_of(const uint8_t *data, size_t size, size_t shift)
{
    Copy copy;
    shift = place == AT_START ? 0 : shift;
    copy.memory = place == ANYWHERE ? malloc(size + shift) : new_guarded(size + shift);
    CHECK(copy.memory != NULL || size + shift == 0);
    if (size + shift) {
        memset(copy.memory, 0xA5, size + shift); /* so that what is not written is wrong */
    }
    copy.data = copy.memory + shift;
    if (size && data != NULL) {
        memcpy(copy.data, data, size);
    }
    return copy;
}

static void
free_copy(Copy copy)
{
    if (place == ANYWHERE) {
        free(copy.memory);
    }
    else {
        free_guarded();
    }
}

/* Masking ------------------------------------------------------------------------------ */

static void
check_mask(const uint8_t *data, size_t size, uint32_t key, size_t shift)
{
    uint8_t octets[4];
    uint8_t expected_high = 0;
    Copy expected = copy_of(data, size, 0);
    Copy source = copy_of(data, size, shift);
    Copy target = copy_of(data, size, (shift * 7) % (MAX_SHIFT + 1));
    uint64_t seen;
    size_t i;

    memcpy(octets, &key, 4);
    for (i = 0; i < size; i++) {
        expected.data[i] = (uint8_t)(data[i] ^ octets[i % 4]);
        expected_high |= expected.data[i] & 0x80;
    }
    seen = fastws_mask(kernels, target.data, source.data, size, key);
    CHECK(size == 0 || memcmp(target.data, expected.data, size) == 0);
    CHECK(size == 0 || memcmp(source.data, data, size) == 0);
    CHECK(((seen & FASTWS_HIGH_BITS) != 0) == (expected_high != 0));
    /* In place, and without the short way for small sizes */
    seen = kernels->mask(source.data, source.data, size, key);
    CHECK(size == 0 || memcmp(source.data, expected.data, size) == 0);
    CHECK(((seen & FASTWS_HIGH_BITS) != 0) == (expected_high != 0));
    free_copy(source);
    free_copy(target);
    free_copy(expected);
}

/* A payload that is masked in two pieces */
static void
check_mask_cut(const uint8_t *data, size_t size, uint32_t key, size_t cut)
{
    Copy whole = copy_of(data, size, 0);
    Copy first = copy_of(data, cut, 0);
    Copy second = copy_of(data + cut, size - cut, 0);

    fastws_mask(kernels, whole.data, whole.data, size, key);
    fastws_mask(kernels, first.data, first.data, cut, key);
    fastws_mask(kernels, second.data, second.data, size - cut, fastws_rotate_key(key, cut));
    CHECK(cut == 0 || memcmp(first.data, whole.data, cut) == 0);
    CHECK(cut == size || memcmp(second.data, whole.data + cut, size - cut) == 0);
    free_copy(whole);
    free_copy(first);
    free_copy(second);
}

/* UTF-8 -------------------------------------------------------------------------------- */

/* How many bytes of the data begin something that is UTF-8 (RFC 3629): all of them, or those
 * in front of the first that cannot follow. `missing` is how many bytes the last code point
 * still needs then. A code point is judged by the range of values it can still have. */
static size_t
utf8_prefix(const uint8_t *data, size_t size, unsigned *missing)
{
    static const uint32_t least[4] = {0, 0x80, 0x800, 0x10000};
    size_t i = 0;
    *missing = 0;
    while (i < size) {
        uint8_t lead = data[i];
        unsigned length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        uint32_t value = length == 1 ? lead : lead & (0x7Fu >> length);
        unsigned left = length - 1;
        if (lead >= 0xF8 || (lead >= 0x80 && lead < 0xC0)) {
            return i;
        }
        for (;;) {
            uint32_t low = value << (6 * left);
            uint32_t high = low | ((1u << (6 * left)) - 1);
            low = low > least[length - 1] ? low : least[length - 1];
            high = high < 0x10FFFF ? high : 0x10FFFF;
            if (low > high || (low >= 0xD800 && high <= 0xDFFF)) {
                return i;
            }
            i++;
            if (left == 0) {
                break;
            }
            if (i == size) {
                *missing = left;
                return size;
            }
            if ((data[i] & 0xC0) != 0x80) {
                return i;
            }
            value = value << 6 | (data[i] & 0x3F);
            left--;
        }
    }
    return size;
}

static void
check_utf8_cut(
    const uint8_t *data, size_t size, size_t cut, size_t shift, size_t good, unsigned missing
)
{
    fastws_utf8 state = {0, 0, 0};
    Copy first = copy_of(data, cut, shift);
    Copy second = copy_of(data + cut, size - cut, shift);
    int valid = fastws_utf8_feed(kernels, &state, first.data, cut);

    CHECK((valid != 0) == (good >= cut));
    if (valid) {
        valid = fastws_utf8_feed(kernels, &state, second.data, size - cut);
        CHECK((valid != 0) == (good == size));
    }
    if (valid) {
        CHECK(state.needed == missing);
    }
    free_copy(first);
    free_copy(second);
}

/* The beginning of the data: valid or not, and in the middle of a code point or not */
static void
check_utf8_prefix(const uint8_t *data, size_t size, size_t shift)
{
    unsigned missing;
    size_t good = utf8_prefix(data, size, &missing);
    check_utf8_cut(data, size, size, shift, good, missing);
}

/* Read a code point, which is valid. */
static uint32_t
code_point(const uint8_t **p)
{
    uint8_t lead = *(*p)++;
    unsigned left = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    uint32_t value = left ? lead & (0x3Fu >> left) : lead;
    while (left--) {
        value = value << 6 | (*(*p)++ & 0x3F);
    }
    return value;
}

static void
check_transcoding(const uint8_t *data, size_t size, size_t shift)
{
    Copy source = copy_of(data, size, shift);
    uint8_t largest, expected_largest = 0;
    size_t count = 0, expected_count = 0, width, i;
    uint32_t most = 0;
    const uint8_t *p = data;
    Copy target;

    if (kernels->utf8_count == NULL) {
        free_copy(source);
        return;
    }
    count = kernels->utf8_count(source.data, size, &largest);
    while (p < data + size) {
        uint32_t value = code_point(&p);
        most = value > most ? value : most;
        expected_count++;
    }
    for (i = 0; i < size; i++) {
        expected_largest = data[i] > expected_largest ? data[i] : expected_largest;
    }
    CHECK(count == expected_count && largest == expected_largest);
    /* The narrowest that they fit in, and all that are wider. */
    for (width = most < 0x100 ? 1 : most < 0x10000 ? 2 : 4; width <= 4; width *= 2) {
        uint32_t value;
        target = copy_of(NULL, count * width, 0);
        if (width == 1) {
            kernels->utf8_to_1(source.data, size, target.memory);
        }
        else if (width == 2) {
            kernels->utf8_to_2(source.data, size, (uint16_t *)target.memory);
        }
        else {
            kernels->utf8_to_4(source.data, size, (uint32_t *)target.memory);
        }
        p = data;
        for (i = 0; i < count; i++) {
            value = width == 1   ? target.memory[i]
                    : width == 2 ? ((uint16_t *)target.memory)[i]
                                 : ((uint32_t *)target.memory)[i];
            CHECK(value == code_point(&p));
        }
        free_copy(target);
    }
    free_copy(source);
}

/* Unmasked, validated and counted at once. The data is what is unmasked. */
static void
check_unmask(
    const uint8_t *data, size_t size, uint32_t key, size_t shift, size_t good, unsigned missing
)
{
    Copy source = copy_of(data, size, shift);
    Copy target = copy_of(NULL, size, (shift * 7) % (MAX_SHIFT + 1));
    uint8_t octets[4], largest, expected_largest = 0;
    size_t count, expected_count = 0, i;

    if (kernels->utf8_unmask == NULL) {
        free_copy(target);
        free_copy(source);
        return;
    }
    memcpy(octets, &key, 4);
    for (i = 0; i < size; i++) {
        source.data[i] ^= octets[i % 4];
        expected_count += (data[i] & 0xC0) != 0x80;
        expected_largest = data[i] > expected_largest ? data[i] : expected_largest;
    }
    if (good < size || missing) {
        expected_count = FASTWS_INVALID;
    }
    count = kernels->utf8_unmask(target.data, source.data, size, key, &largest);
    CHECK(count == expected_count);
    if (count != FASTWS_INVALID) {
        CHECK(largest == expected_largest || (largest < 0x80 && expected_largest < 0x80));
    }
    CHECK(size == 0 || memcmp(target.data, data, size) == 0);
    free_copy(target);
    free_copy(source);
}

static void
check(const uint8_t *data, size_t size)
{
    uint32_t key;
    size_t shift, seed, good, whole, i, cuts;
    unsigned missing, unfinished;

    memcpy(&key, data, 4);
    shift = data[4] % (MAX_SHIFT + 1);
    seed = data[5];
    data += 6;
    size -= 6;

    good = utf8_prefix(data, size, &missing);
    for (whole = good; whole; whole--) {
        /* Without the character that is wrong or not complete. */
        if (utf8_prefix(data, whole, &unfinished) == whole && !unfinished) {
            break;
        }
    }
    for (place = ANYWHERE; place <= AT_END; place++) {
        check_mask(data, size, key, shift);
        check_utf8_prefix(data, size, shift);
        check_unmask(data, size, key, shift, good, missing);
        check_unmask(data, whole, 0, shift, whole, 0);
        check_transcoding(data, whole, shift);
        if (4 * size + MAX_SHIFT > GUARDED) {
            break;
        }
    }
    place = ANYWHERE;
    cuts = size <= ALL_CUTS ? size + 1 : ALL_CUTS;
    for (i = 0; i < cuts; i++) {
        size_t cut = size <= ALL_CUTS ? i : (seed * 131 + i * 257) % (size + 1);
        check_mask_cut(data, size, key, cut);
        check_utf8_cut(data, size, cut, shift, good, missing);
        check_utf8_prefix(data, cut, shift);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int ready = 0;
    int rank;
    if (!ready) {
        fastws_make_tables();
        make_guarded();
        fprintf(stderr, "kernels:");
        for (rank = 0; (kernels = fastws_kernels_by_rank(rank, 0)) != NULL; rank++) {
            fprintf(stderr, " %s", kernels->name);
        }
        fprintf(stderr, "\n");
        ready = 1;
    }
    if (size >= 6) {
        for (rank = 0; (kernels = fastws_kernels_by_rank(rank, 0)) != NULL; rank++) {
            check(data, size);
        }
    }
    return 0;
}

/* Without libFuzzer ---------------------------------------------------------------------- */

#ifdef FASTWS_STANDALONE
#define MAX_DATA 5000
#define MOST_DATA 400 /* the limit for all but a few inputs, because large ones take long */

static uint64_t drawn;

/* A number below `limit`, by SplitMix64. */
static uint32_t
draw(uint32_t limit)
{
    uint64_t z = drawn += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (uint32_t)((z ^ z >> 31) % limit);
}

static void
draw_noise(uint8_t *data, size_t size)
{
    size_t i;
    for (i = 0; i < size; i++) {
        data[i] = (uint8_t)draw(256);
    }
}

/* UTF-8 that may end in the middle of a character, with some sizes of characters and not
 * others, or all of it Latin-1, and shorter or longer runs of one size. */
static void
draw_text(uint8_t *data, size_t size)
{
    static const uint32_t least[5] = {0, 0x80, 0x800, 0x10000, 0x110000};
    uint32_t sizes = 1 + draw(20);
    uint32_t turn = 1 + draw(24);
    uint32_t length = 0;
    int latin = sizes > 15;
    size_t i = 0;
    sizes = latin ? 3 : sizes;
    while (i < size) {
        uint32_t low, high, value, left;
        while (length == 0 || draw(turn) == 0) {
            length = 1 + draw(4);
            if (sizes >> (length - 1) & 1) {
                break;
            }
            length = 0;
        }
        low = least[length - 1];
        high = latin && length == 2 ? 0xFF : least[length] - 1;
        switch (draw(8)) {
        case 0: value = low; break;
        case 1: value = high; break;
        default: value = low + draw(high - low + 1);
        }
        if (value >= 0xD800 && value <= 0xDFFF) {
            value ^= 0x1000;
        }
        left = length - 1;
        data[i++] = (uint8_t)(left ? (0xF00u >> length & 0xFF) | value >> 6 * left : value);
        while (left-- && i < size) {
            data[i++] = (uint8_t)(0x80 | (value >> 6 * left & 0x3F));
        }
    }
}

int
main(int argc, char **argv)
{
    unsigned long inputs = argc > 1 ? strtoul(argv[1], NULL, 0) : 100000;
    unsigned long seed = argc > 2 ? strtoul(argv[2], NULL, 0) : 7692;
    unsigned long i, valid = 0;
    int rank;

    drawn = (uint64_t)seed << 32;
    for (i = 0; i < inputs; i++) {
        uint8_t input[6 + MAX_DATA];
        uint8_t *data = input + 6;
        size_t size = draw(draw(64) ? MOST_DATA + 1 : MAX_DATA + 1);
        draw_noise(input, 6);
        if (i % 2) {
            draw_noise(data, size);
        }
        else {
            uint32_t damage = draw(3);
            unsigned missing;
            draw_text(data, size);
            CHECK(utf8_prefix(data, size, &missing) == size);
            while (size && damage--) {
                data[draw((uint32_t)size)] = (uint8_t)draw(256);
            }
            valid += utf8_prefix(data, size, &missing) == size;
        }
        LLVMFuzzerTestOneInput(input, 6 + size);
    }
    printf("%lu inputs, %lu of them valid text:", inputs, valid);
    for (rank = 0; (kernels = fastws_kernels_by_rank(rank, 0)) != NULL; rank++) {
        printf(" %s", kernels->name);
    }
    printf("\n");
    return 0;
}
#endif
