/* The kernels for AVX-512 with VBMI and VBMI2.
 *
 * These are not made from simd.h, because masks replace what most of that file is about. A masked
 * load or store leaves out the bytes outside a buffer, so that the last block is like any other:
 * there are no scalar loops, and nothing need follow a block. A masked compare finds the bytes of
 * one length, and a compress instruction drops the others, so that no tables of shuffles are
 * needed. From simd.h come the ideas, in its order: masking, validation, transcoding.
 *
 * A kernel reads and writes nothing outside its buffers: bytes that a mask leaves out are not
 * accessed, so they cannot cause a fault.
 */
#ifndef FASTWS_AVX512_H
#define FASTWS_AVX512_H

#include "kernels.h"

#include <immintrin.h>

#define FASTWS_TARGET \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2," \
                          "bmi,bmi2,popcnt")))
#define OP static inline FASTWS_TARGET __attribute__((always_inline))
#define FN(name) fastws_##name##_avx512
#define TABLE(name) static const uint8_t FN(name)[64] __attribute__((aligned(64)))
#define FOUR(x) x, x, x, x
#define SIXTEEN(x) FOUR(x), FOUR(x), FOUR(x), FOUR(x)

#define ALL (~UINT64_C(0))

/* Return a mask of the first n bytes, or of all 64 if n is larger. */
OP uint64_t FN(first)(size_t n) { return n < 64 ? _bzhi_u64(ALL, (unsigned int)n) : ALL; }
OP __m512i FN(load)(const void *p) { return _mm512_loadu_si512(p); }
OP void FN(store)(void *p, __m512i v) { _mm512_storeu_si512(p, v); }
OP __m512i FN(fill8)(uint8_t x) { return _mm512_set1_epi8((char)x); }
OP __m512i FN(fill32)(uint32_t x) { return _mm512_set1_epi32((int)x); }
OP __m512i FN(or)(__m512i a, __m512i b) { return _mm512_or_si512(a, b); }
OP __m512i FN(xor)(__m512i a, __m512i b) { return _mm512_xor_si512(a, b); }
OP __m512i FN(max)(__m512i a, __m512i b) { return _mm512_max_epu8(a, b); }
OP int FN(any)(__m512i v) { return _mm512_test_epi64_mask(v, v) != 0; }
OP int FN(ascii)(__m512i v) { return _mm512_movepi8_mask(v) == 0; }

/* Operations on three vectors, which one instruction does. */
#define OR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0xFE)
#define AND3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x80)
#define OR_AND(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0xA8) /* (a | b) & c */
#define OR_XOR(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0xF6) /* a | (b ^ c) */
#define AND_OR(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0xEA) /* (a & b) | c */
#define CHOOSE(mask, a, b) _mm512_ternarylogic_epi64(mask, a, b, 0xCA) /* mask ? a : b */

/* Masking -------------------------------------------------------------------------- */

/* From this size on, align the destination: each store to another one writes two cache lines. */
#define WORTH_ALIGNING 2048

/* Like fastws_mask_words. The first and the last 64 bytes may overlap the others, so they are
 * loaded before and stored after them; so this works in place. */
static FASTWS_TARGET uint64_t
FN(mask)(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key)
{
    __m512i pad = FN(fill32)(key), seen, first, last;
    size_t i = 0;
    if (n < 64) {
        uint64_t there = FN(first)(n);
        seen = FN(xor)(_mm512_maskz_loadu_epi8(there, src), pad);
        _mm512_mask_storeu_epi8(dst, there, seen);
        return _mm512_movepi8_mask(seen) & there ? FASTWS_HIGH_BITS : 0;
    }
    last = FN(xor)(FN(load)(src + n - 64), FN(fill32)(fastws_rotate_key(key, n)));
    seen = first = last;
    if (n >= WORTH_ALIGNING) {
        first = FN(xor)(FN(load)(src), pad);
        seen = FN(or)(first, last);
        i = 64 - ((uintptr_t)dst & 63);
        pad = FN(fill32)(fastws_rotate_key(key, i));
    }
    for (; i + 256 <= n; i += 256) {
        __m512i a = FN(xor)(FN(load)(src + i), pad);
        __m512i b = FN(xor)(FN(load)(src + i + 64), pad);
        __m512i c = FN(xor)(FN(load)(src + i + 128), pad);
        __m512i d = FN(xor)(FN(load)(src + i + 192), pad);
        FN(store)(dst + i, a);
        FN(store)(dst + i + 64, b);
        FN(store)(dst + i + 128, c);
        FN(store)(dst + i + 192, d);
        seen = OR3(seen, FN(or)(a, b), FN(or)(c, d));
    }
    for (; i + 64 <= n; i += 64) {
        __m512i a = FN(xor)(FN(load)(src + i), pad);
        FN(store)(dst + i, a);
        seen = FN(or)(seen, a);
    }
    if (n >= WORTH_ALIGNING) {
        FN(store)(dst, first);
    }
    FN(store)(dst + n - 64, last);
    return FN(ascii)(seen) ? 0 : FASTWS_HIGH_BITS;
}

/* Validation ----------------------------------------------------------------------------
 *
 * As in simd.h, but the tables have 64 entries. One is looked up by the low six bits of a byte,
 * which say all about a byte that begins a character; the others by the high six bits. (A lookup
 * ignores the two bits above its index, so that nothing must be masked.) */

enum {
    FN(SHORT) = 1 << 0, /* a character begins before the last is complete */
    FN(LONG) = 1 << 1, /* a continuation byte after ASCII */
    FN(OVERLONG_3) = 1 << 2, /* E0 80..9F */
    FN(TOO_LARGE) = 1 << 3, /* F4 90..BF */
    FN(SURROGATE) = 1 << 4, /* ED A0..BF */
    FN(NEVER) = 1 << 5, /* C0, C1, F5..FF */
    FN(OVERLONG_4) = 1 << 6, /* F0 80..8F */
    FN(TWO) = 1 << 7, /* two continuation bytes */
    FN(FIRST) = ~(FN(LONG) | FN(TWO)) & 0xFF, /* what can be wrong with a first byte */
    FN(NEXT) = FN(LONG) | FN(TWO) | FN(NEVER), /* what is wrong with any continuation byte */
    /* errors that the low bits of the first byte cannot rule out */
    FN(ANY_LOW) = FN(SHORT) | FN(LONG) | FN(TWO)
};

#define ANY FN(ANY_LOW)
TABLE(first_high) = {
    SIXTEEN(FN(LONG)), SIXTEEN(FN(LONG)), SIXTEEN(FN(TWO)), SIXTEEN(FN(FIRST))
};
TABLE(first_low) = {
    ANY | FN(NEVER), ANY | FN(NEVER), ANY, ANY, FOUR(ANY), FOUR(ANY), FOUR(ANY),
    SIXTEEN(ANY),
    ANY | FN(OVERLONG_3), ANY, ANY, ANY, FOUR(ANY), FOUR(ANY),
    ANY, ANY | FN(SURROGATE), ANY, ANY,
    ANY | FN(OVERLONG_4), ANY, ANY, ANY, ANY | FN(TOO_LARGE),
    ANY | FN(NEVER), ANY | FN(NEVER), ANY | FN(NEVER), FOUR(ANY | FN(NEVER)), FOUR(ANY | FN(NEVER))
};
TABLE(second_high) = {
    SIXTEEN(FN(SHORT)), SIXTEEN(FN(SHORT)),
    FOUR(FN(NEXT) | FN(OVERLONG_3) | FN(OVERLONG_4)),
    FOUR(FN(NEXT) | FN(OVERLONG_3) | FN(TOO_LARGE)),
    FOUR(FN(NEXT) | FN(SURROGATE) | FN(TOO_LARGE)),
    FOUR(FN(NEXT) | FN(SURROGATE) | FN(TOO_LARGE)),
    SIXTEEN(FN(SHORT))
};
#undef ANY

/* Add to the errors a nonzero byte for each byte that must not follow the bytes before it. */
OP __m512i
FN(wrong)(__m512i errors, __m512i v, __m512i before)
{
    /* The next instructions shift within lanes of 16 bytes; this has the lane before each. */
    __m512i lanes = _mm512_alignr_epi32(v, before, 12);
    __m512i previous = _mm512_alignr_epi8(v, lanes, 15);
    __m512i found = AND3(
        _mm512_permutexvar_epi8(_mm512_srli_epi16(previous, 2), FN(load)(FN(first_high))),
        _mm512_permutexvar_epi8(previous, FN(load)(FN(first_low))),
        _mm512_permutexvar_epi8(_mm512_srli_epi16(v, 2), FN(load)(FN(second_high)))
    );
    /* Set the top bit of each byte that must be the third or fourth of its character. */
    __m512i third = _mm512_subs_epu8(_mm512_alignr_epi8(v, lanes, 14), FN(fill8)(0xE0 - 0x80));
    __m512i fourth = _mm512_subs_epu8(_mm512_alignr_epi8(v, lanes, 13), FN(fill8)(0xF0 - 0x80));
    return OR_XOR(errors, OR_AND(third, fourth, FN(fill8)(0x80)), found);
}

/* Add to the errors if the last character is incomplete. */
OP __m512i
FN(unfinished)(__m512i errors, __m512i v)
{
    __m512i most = _mm512_set_epi64((int64_t)0xBFDFEFFFFFFFFFFF, -1, -1, -1, -1, -1, -1, -1);
    return FN(or)(errors, _mm512_subs_epu8(v, most));
}

OP uint8_t
FN(largest)(__m512i v)
{
    __m256i half = _mm256_max_epu8(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    __m128i most = _mm_max_epu8(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    /* There is an instruction for the smallest of eight; so look for the smallest complement. */
    most = _mm_xor_si128(most, _mm_set1_epi8(-1));
    most = _mm_minpos_epu16(_mm_min_epu8(most, _mm_srli_epi16(most, 8)));
    return (uint8_t)~_mm_cvtsi128_si32(most);
}

OP uint64_t
FN(continues)(__m512i v)
{
    return _mm512_cmplt_epi8_mask(v, FN(fill8)(0xC0));
}

/* Validate; if `unmasks`, also unmask to dst and count. (The compiler makes a function for each.)
 * Small messages feel each call, and large ones each time that they are read, so this is one. */
OP size_t
FN(check)(
    uint8_t *dst, const uint8_t *src, size_t n, uint32_t key, uint8_t *largest, int unmasks
)
{
    __m512i pad = FN(fill32)(unmasks ? key : 0);
    __m512i errors = _mm512_setzero_si512(), before = errors, most = errors;
    size_t count = n;
    int all_ascii = 1;
    for (; n >= 256; n -= 256, src += 256) {
        __m512i a = FN(xor)(FN(load)(src), pad), b = FN(xor)(FN(load)(src + 64), pad);
        __m512i c = FN(xor)(FN(load)(src + 128), pad), d = FN(xor)(FN(load)(src + 192), pad);
        if (unmasks) {
            FN(store)(dst, a);
            FN(store)(dst + 64, b);
            FN(store)(dst + 128, c);
            FN(store)(dst + 192, d);
            dst += 256;
        }
        if (FN(ascii)(OR3(FN(or)(a, b), c, d))) {
            errors = FN(unfinished)(errors, before);
        }
        else {
            all_ascii = 0;
            errors = FN(wrong)(errors, a, before);
            errors = FN(wrong)(errors, b, a);
            errors = FN(wrong)(errors, c, b);
            errors = FN(wrong)(errors, d, c);
            if (unmasks) {
                most = FN(max)(FN(max)(most, FN(max)(a, b)), FN(max)(c, d));
                count -= (size_t)(__builtin_popcountll(FN(continues)(a))
                                  + __builtin_popcountll(FN(continues)(b))
                                  + __builtin_popcountll(FN(continues)(c))
                                  + __builtin_popcountll(FN(continues)(d)));
            }
        }
        before = d;
        /* Stop early, so that invalid data does not take much time. */
        if (!unmasks && (n & 0xF00) == 0 && FN(any)(errors)) {
            return FASTWS_INVALID;
        }
    }
    while (n) {
        /* After an incomplete character, a zero is an error. */
        __m512i v;
        if (n >= 64) {
            v = FN(xor)(FN(load)(src), pad);
            if (unmasks) {
                FN(store)(dst, v);
                dst += 64;
            }
        }
        else {
            uint64_t there = FN(first)(n);
            v = FN(xor)(_mm512_maskz_loadu_epi8(there, src), _mm512_maskz_mov_epi8(there, pad));
            if (unmasks) {
                _mm512_mask_storeu_epi8(dst, there, v);
            }
        }
        if (FN(ascii)(v)) {
            errors = FN(unfinished)(errors, before);
        }
        else {
            all_ascii = 0;
            errors = FN(wrong)(errors, v, before);
            if (unmasks) {
                most = FN(max)(most, v);
                count -= (size_t)__builtin_popcountll(FN(continues)(v));
            }
        }
        before = v;
        src += 64;
        n = n < 64 ? 0 : n - 64;
    }
    if (all_ascii) {
        if (unmasks) {
            *largest = 0;
        }
        return count;
    }
    if (unmasks) {
        *largest = FN(largest)(most);
    }
    return FN(any)(FN(unfinished)(errors, before)) ? FASTWS_INVALID : count;
}

/* Like fastws_utf8_valid_scalar. */
static FASTWS_TARGET int
FN(utf8_valid)(const uint8_t *p, size_t n)
{
    return FN(check)(NULL, p, n, 0, NULL, 0) != FASTWS_INVALID;
}

static FASTWS_TARGET size_t
FN(utf8_unmask)(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key, uint8_t *largest)
{
    return FN(check)(dst, src, n, key, largest, 1);
}

/* Count the characters in valid UTF-8, and find its largest byte. */
static FASTWS_TARGET size_t
FN(utf8_count)(const uint8_t *p, size_t n, uint8_t *largest)
{
    __m512i most = _mm512_setzero_si512();
    size_t count = n;
    while (n) {
        __m512i v = _mm512_maskz_loadu_epi8(FN(first)(n), p);
        most = FN(max)(most, v);
        count -= (size_t)__builtin_popcountll(FN(continues)(v));
        p += 64;
        n = n < 64 ? 0 : n - 64;
    }
    *largest = FN(largest)(most);
    return count;
}

/* Transcoding --------------------------------------------------------------------------
 *
 * As in simd.h, each byte is treated as if it were the last of its character, and combined with
 * the bytes before it. That makes vectors of the lowest, the second and the third byte of each
 * result; then the results for bytes that are not the last are dropped from each vector, and the
 * vectors are merged. */

TABLE(positions) = {
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42,
    43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63
};

/* Store a part of up to 64 characters; `there` has a bit for each character. */
OP void
FN(put)(uint8_t *out, int width, int part, __m512i v, uint64_t there, int whole)
{
    out += 64 * part;
    if (whole) {
        FN(store)(out, v);
    }
    else if (width == 1) {
        _mm512_mask_storeu_epi8(out, there, v);
    }
    else if (width == 2) {
        _mm512_mask_storeu_epi16(out, (__mmask32)(there >> 32 * part), v);
    }
    else {
        _mm512_mask_storeu_epi32(out, (__mmask16)(there >> 16 * part), v);
    }
}

/* Decode up to 64 characters of ASCII. */
OP void
FN(widen)(uint8_t *out, int width, __m512i v, uint64_t there, int whole)
{
    if (width == 1) {
        FN(put)(out, 1, 0, v, there, whole);
    }
    else if (width == 2) {
        __m256i low = _mm512_castsi512_si256(v), high = _mm512_extracti64x4_epi64(v, 1);
        FN(put)(out, 2, 0, _mm512_cvtepu8_epi16(low), there, whole);
        FN(put)(out, 2, 1, _mm512_cvtepu8_epi16(high), there, whole);
    }
    else {
#define QUARTER(i) _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(v, i))
        FN(put)(out, 4, 0, QUARTER(0), there, whole);
        FN(put)(out, 4, 1, QUARTER(1), there, whole);
        FN(put)(out, 4, 2, QUARTER(2), there, whole);
        FN(put)(out, 4, 3, QUARTER(3), there, whole);
#undef QUARTER
    }
}

/* Decode the characters that end in the next 64 bytes, or in the n bytes that are left; return how
 * many they are. If `whole`, another byte follows, and there is room for 64 characters. */
OP size_t
FN(block)(const uint8_t *p, size_t n, uint8_t *out, int width, int whole)
{
    const __m512i next = FN(fill8)(0xC0); /* as a signed number, more than continuation bytes */
    uint64_t there = whole ? ALL : FN(first)(n);
    __m512i v = whole ? FN(load)(p) : _mm512_maskz_loadu_epi8(there, p);
    /* The bytes 1, 2 and 3 positions before, if they belong to the same character. The first byte
     * of the text does not continue one, so nothing before it is read. */
    __m512i one, two, three;
    __m512i lowest, second, third, order, from, low, high;
    __mmask64 ends, has_one, has_two, has_three;
    size_t count;

    if (FN(ascii)(v)) {
        FN(widen)(out, width, v, there, whole);
        return n < 64 ? n : 64;
    }
    if (whole) {
        ends = _mm512_cmpge_epi8_mask(FN(load)(p + 1), next);
    }
    else {
        /* A zero follows the text. */
        ends = _mm512_mask_cmpge_epi8_mask(
            there, _mm512_maskz_loadu_epi8(FN(first)(n - 1), p + 1), next
        );
    }
    count = (size_t)__builtin_popcountll(ends);
    there = FN(first)(count);

    has_one = _mm512_cmplt_epi8_mask(v, next);
    one = _mm512_maskz_loadu_epi8(has_one, p - 1);
    /* ASCII has seven bits; the other bytes that are the last have six. */
    lowest = AND_OR(
        _mm512_slli_epi16(one, 6), FN(fill8)(0xC0), _mm512_and_si512(v, FN(fill8)(0x7F))
    );
    if (width == 1) {
        FN(put)(out, 1, 0, _mm512_maskz_compress_epi8(ends, lowest), there, whole);
        return count;
    }

    has_two = _mm512_mask_cmplt_epi8_mask(has_one, one, next);
    two = _mm512_maskz_loadu_epi8(has_two, p - 2);
    second = CHOOSE(FN(fill8)(0x0F), _mm512_srli_epi16(one, 2), _mm512_slli_epi16(two, 4));
    /* To merge vectors means to interleave halves of their lanes. Move each byte to where this
     * puts it in its place. */
    from = _mm512_maskz_compress_epi8(ends, FN(load)(FN(positions)));
    if (width == 2) {
        order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
        from = _mm512_permutexvar_epi64(order, from);
    }
    else {
        order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
        from = _mm512_permutexvar_epi32(order, from);
    }
    lowest = _mm512_permutexvar_epi8(from, lowest);
    second = _mm512_permutexvar_epi8(from, second);
    low = _mm512_unpacklo_epi8(lowest, second);
    high = _mm512_unpackhi_epi8(lowest, second);
    if (width == 2) {
        FN(put)(out, 2, 0, low, there, whole);
        if (count > 32) {
            FN(put)(out, 2, 1, high, there, whole);
        }
        return count;
    }

    has_three = _mm512_mask_cmplt_epi8_mask(has_two, two, next);
    three = _mm512_and_si512(_mm512_maskz_loadu_epi8(has_three, p - 3), FN(fill8)(0x07));
    three = _mm512_add_epi8(three, three); /* faster than shifts */
    three = _mm512_add_epi8(three, three);
    third = CHOOSE(FN(fill8)(0x03), _mm512_srli_epi16(two, 4), three);
    third = _mm512_permutexvar_epi8(from, _mm512_maskz_mov_epi8(has_three, third));
    {
        __m512i zero = _mm512_setzero_si512();
        __m512i upper_low = _mm512_unpacklo_epi8(third, zero);
        __m512i upper_high = _mm512_unpackhi_epi8(third, zero);
        FN(put)(out, 4, 0, _mm512_unpacklo_epi16(low, upper_low), there, whole);
        FN(put)(out, 4, 1, _mm512_unpackhi_epi16(low, upper_low), there, whole);
        if (count > 32) {
            FN(put)(out, 4, 2, _mm512_unpacklo_epi16(high, upper_high), there, whole);
            FN(put)(out, 4, 3, _mm512_unpackhi_epi16(high, upper_high), there, whole);
        }
    }
    return count;
}

/* Decode to characters of this width. The blocks that are followed by 64 characters, or more, are
 * stored whole; `longest` is the size of the longest character. */
OP void
FN(transcode)(const uint8_t *p, size_t n, uint8_t *out, int width, size_t longest)
{
    for (; n >= 64 * longest; n -= 64, p += 64) {
        out += (size_t)width * FN(block)(p, n, out, width, 1);
    }
    for (; n; n = n < 64 ? 0 : n - 64, p += 64) {
        out += (size_t)width * FN(block)(p, n, out, width, 0);
    }
}

static FASTWS_TARGET void
FN(utf8_to_1)(const uint8_t *p, size_t n, uint8_t *out)
{
    FN(transcode)(p, n, out, 1, 2);
}

static FASTWS_TARGET void
FN(utf8_to_2)(const uint8_t *p, size_t n, uint16_t *out)
{
    FN(transcode)(p, n, (uint8_t *)out, 2, 3);
}

static FASTWS_TARGET void
FN(utf8_to_4)(const uint8_t *p, size_t n, uint32_t *out)
{
    FN(transcode)(p, n, (uint8_t *)out, 4, 4);
}

#undef WORTH_ALIGNING
#undef CHOOSE
#undef AND_OR
#undef OR_XOR
#undef OR_AND
#undef AND3
#undef OR3
#undef ALL
#undef SIXTEEN
#undef FOUR
#undef TABLE
#undef FN
#undef OP
#undef FASTWS_TARGET

#endif
