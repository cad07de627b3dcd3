# Part of `reader.pyx`: dedup ids, which are the SHA-1 of a record's identity (`records.uuid5_text`).
#
# Most processors of x86-64 have instructions for SHA-1. With them a block takes 40 ns, without them 350, and the
# identity of a position has two blocks. `dedup_ids` shows that both ways make the same id.

cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <cpuid.h>
    #include <immintrin.h>

    static int has_sha1_instructions(void) {
        unsigned int a, b, c, d;
        // SSSE3 is bit 9, SSE4.1 bit 19, SHA bit 29 (Intel's manual, CPUID).
        return __get_cpuid(1, &a, &b, &c, &d) && c >> 9 & 1 && c >> 19 & 1
            && __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1;
    }

    __attribute__((target("sha,ssse3,sse4.1")))
    static void sha1_block_by_instructions(unsigned int *state, const unsigned char *data) {
        const __m128i big_endian = _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f);
        const __m128i begun = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0x1b);
        const __m128i last = _mm_set_epi32((int)state[4], 0, 0, 0);
        __m128i w[4], next, before = last, abcd = begun;
        int step;
        // Four rounds of their 80. A function with the number of the rounds' constant, which must be in the code.
        #define FOUR_ROUNDS(constant)                                                                               \\
            if (step < 4)                                                                                           \\
                w[step] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data + step), big_endian);              \\
            else                                                                                                    \\
                w[step & 3] = _mm_sha1msg2_epu32(_mm_xor_si128(_mm_sha1msg1_epu32(w[step & 3], w[(step + 1) & 3]),  \\
                                                               w[(step + 2) & 3]), w[(step + 3) & 3]);              \\
            next = step ? _mm_sha1nexte_epu32(before, w[step & 3]) : _mm_add_epi32(last, w[0]);                     \\
            before = abcd;                                                                                          \\
            abcd = _mm_sha1rnds4_epu32(abcd, next, constant);
        for (step = 0; step < 5; step++) { FOUR_ROUNDS(0) }
        for (; step < 10; step++) { FOUR_ROUNDS(1) }
        for (; step < 15; step++) { FOUR_ROUNDS(2) }
        for (; step < 20; step++) { FOUR_ROUNDS(3) }
        state[4] = (unsigned int)_mm_extract_epi32(_mm_sha1nexte_epu32(before, last), 3);
        _mm_storeu_si128((__m128i *)state, _mm_shuffle_epi32(_mm_add_epi32(abcd, begun), 0x1b));
    }
    #else
    static int has_sha1_instructions(void) { return 0; }
    static void sha1_block_by_instructions(unsigned int *state, const unsigned char *data) {}
    #endif
    """
    bint has_sha1_instructions() noexcept
    void sha1_block_by_instructions(uint32_t* state, const unsigned char* data) noexcept

cdef enum:
    UUID_SIZE = 38  # of JSON text

cdef bint HAS_SHA1_INSTRUCTIONS = has_sha1_instructions()
cdef bytes NAMESPACE = DEDUP_NAMESPACE
cdef const unsigned char* HEX = b"0123456789abcdef"


cdef inline uint32_t left(uint32_t value, int bits) noexcept:
    return (value << bits) | (value >> (32 - bits))


cdef void sha1_block(uint32_t* state, const unsigned char* data) noexcept:
    """Take 64 bytes into the state (RFC 3174, 6.1)."""
    cdef uint32_t w[80]
    cdef uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], mixed
    cdef int t
    for t in range(16):
        w[t] = (<uint32_t>data[4 * t] << 24 | <uint32_t>data[4 * t + 1] << 16
                | <uint32_t>data[4 * t + 2] << 8 | <uint32_t>data[4 * t + 3])
    for t in range(16, 80):
        w[t] = left(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1)
    for t in range(20):
        mixed = left(a, 5) + (d ^ (b & (c ^ d))) + e + w[t] + 0x5A827999U
        e = d; d = c; c = left(b, 30); b = a; a = mixed
    for t in range(20, 40):
        mixed = left(a, 5) + (b ^ c ^ d) + e + w[t] + 0x6ED9EBA1U
        e = d; d = c; c = left(b, 30); b = a; a = mixed
    for t in range(40, 60):
        mixed = left(a, 5) + ((b & c) | (d & (b | c))) + e + w[t] + 0x8F1BBCDCU
        e = d; d = c; c = left(b, 30); b = a; a = mixed
    for t in range(60, 80):
        mixed = left(a, 5) + (b ^ c ^ d) + e + w[t] + 0xCA62C1D6U
        e = d; d = c; c = left(b, 30); b = a; a = mixed
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d
    state[4] += e


cdef inline void take_block(uint32_t* state, const unsigned char* data, bint by_instructions) noexcept:
    if by_instructions:
        sha1_block_by_instructions(state, data)
    else:
        sha1_block(state, data)


cdef bint put_id(Cursor* cursor, str identity, bint by_instructions) except -1:
    """Write the dedup id of an identity as JSON text."""
    cdef uint32_t state[5]
    cdef unsigned char block[64]
    cdef Py_ssize_t size, at = 0, filled = PyBytes_GET_SIZE(NAMESPACE), taken
    cdef const char* text = PyUnicode_AsUTF8AndSize(identity, &size)
    cdef uint64_t bits = 8 * <uint64_t>(filled + size)
    cdef int index
    cdef unsigned char byte
    state[0], state[1], state[2], state[3], state[4] = 0x67452301U, 0xEFCDAB89U, 0x98BADCFEU, 0x10325476U, 0xC3D2E1F0U
    memcpy(block, PyBytes_AS_STRING(NAMESPACE), filled)
    while True:
        taken = min(64 - filled, size - at)
        memcpy(block + filled, text + at, taken)
        at, filled = at + taken, filled + taken
        if filled < 64:
            break
        take_block(state, block, by_instructions)
        filled = 0
    memset(block + filled, 0, 64 - filled)
    block[filled] = 0x80
    if filled >= 56:
        take_block(state, block, by_instructions)
        memset(block, 0, 64)
    for index in range(8):
        block[63 - index] = <unsigned char>(bits >> (8 * index))
    take_block(state, block, by_instructions)
    put(cursor, b'"')
    for index in range(16):
        byte = <unsigned char>(state[index // 4] >> (24 - 8 * (index % 4)))
        if index == 6:
            byte = (byte & 0x0F) | 0x50
        elif index == 8:
            byte = (byte & 0x3F) | 0x80
        if index in (4, 6, 8, 10):
            put(cursor, b"-")
        put(cursor, HEX[byte >> 4])
        put(cursor, HEX[byte & 15])
    put(cursor, b'"')
    return 1


def dedup_ids(str identity):
    """Return the dedup id of an identity, made in each way that this processor has."""
    cdef unsigned char room[UUID_SIZE]
    cdef Cursor cursor
    found = []
    for by_instructions in {False, HAS_SHA1_INSTRUCTIONS}:
        cursor.out, cursor.size = room, 0
        put_id(&cursor, identity, by_instructions)
        found.append(room[1 : UUID_SIZE - 1].decode())
    return found
