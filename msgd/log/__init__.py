"""The log: one writer (`store`), many readers (`reader`), derived files beside it (`index`, `words`).

All that a node knows lies here, in the order in which it learned it; everything else can be rebuilt from
it. The log is one row of bytes, addressed by *log offset*, cut into segments, filled with records.

**A segment** is a file named by the log offset of its first byte, 20 decimal digits and `.log`. It ends
where the next one begins; what its file may hold beyond that does not count. It begins with checkpoint
records, the last of which has flag bit 0 set, and holds records of one format version only. A file
`<log offset>.broken` is a torn tail that was set aside at a start; `*.tmp` was never finished. An empty file
`<log offset>.gone` says that what stood from there to the next name was removed (`vacuum`); what is
missing without one is damage, unless it is the beginning of the log.

**A record** is header, payload and CRC. All numbers are little-endian, both CRCs are CRC-32 as in zlib.

| bytes | field | type | |
|---|---|---|---|
| 0 | magic | 4s | `msgR` |
| 4 | log | 8s | random id of this log, the same in every record |
| 12 | version | u8 | 1 |
| 13 | kind | u8 | below |
| 14 | direction | u8 | 0 none, 1 out, 2 in |
| 15 | flags | u8 | bits, below |
| 16 | length | u32 | bytes of the payload |
| 20 | begin | u64 | log offset where the write began that carried this record |
| 28 | peer | u32 | local number of the peer, 0 none |
| 32 | count | u32 | messages |
| 36 | first_seq | u64 | of the messages; of a receipt: the seq up to which all is stored |
| 44 | aux | u64 | by kind, below; else 0 |
| 52 | head | 32s | digest of the direction so far |
| 84 | wall_ns | u64 | CLOCK_REALTIME when it was added |
| 92 | boot_ns | u64 | CLOCK_BOOTTIME when it was added |
| 100 | start | 16s | 8 bytes of the kernel's boot id, 8 random ones per start of msgd |
| 116 | crc | u32 | of bytes 0-115 |
| 120 | payload | | |
| 120 + length | crc | u32 | of the payload |

Flags: bit 0 ends the checkpoints that begin a segment; bit 1, of held: `aux` ends with pairing; bit 2: among
the messages are reports (`msgd.wire.reports`); bit 3, of out and held: one message of a group, whose id other
records have, too.

`aux` of a held record: its expiry, Unix ns, 0 never; of a receipt or recovered: the receiver's clock, Unix
ns; of the first record of a segment: the inode of the file that it was written to, 0 unknown.

| kind | | payload |
|---|---|---|
| 1 | out | messages verbatim (`msgd.wire.codec`), with seq |
| 2 | in | messages verbatim, with seq |
| 3 | receipt | none; direction 1 |
| 4 | held | messages verbatim, without seq |
| 5 | released | ranges `<QIII`: log offset of a held record, first byte, bytes, messages; gives them seqs |
| 6 | ended | msgpack: state, reason, [[log offset of a record, index], …] |
| 7 8 10 | peer, epoch, clock_step | msgpack, defined by `msgd.standing` |
| 9 | cursor | msgpack, defined by `msgd.cursors` |
| 11 | checkpoint | msgpack, defined by `msgd.standing` and `msgd.cursors` |
| 12 | recovered | messages verbatim, with their former seqs; with count 0 the msgpack of an `epoch` |

**An append** is what one write and one fdatasync carried, at most 1 MiB: one or more records with the same
`begin`, which is the first one's place. Nothing is written behind an append before it is durable. So only
the last append of the newest segment can be torn, or be missing on the disk though the page cache shows
it, and a start repairs just that (`scan`, `recovery`). A record never spans segments, an append neither.
"""
