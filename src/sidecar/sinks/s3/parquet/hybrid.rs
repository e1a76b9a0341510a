//! Small numbers as Parquet writes them: runs of equal ones as one number and a count, others packed to as many bits as
//! the largest needs, eight at a time. Pure.

use super::values::Run;

/// Numbers that are packed behind one head: as many as all readers take.
const PACKED_MAX: usize = 63 * 8;

/// Fewer equal numbers are not worth a run.
const RUN_MIN: u32 = 8;

/// How many bits `numbers` numbers need, counted from 0.
pub(super) fn width(numbers: usize) -> u32 {
    usize::BITS - numbers.saturating_sub(1).leading_zeros()
}

/// Appends the runs' numbers, each of at most `width` bits.
pub(super) fn write(runs: &[Run], width: u32, out: &mut Vec<u8>) {
    let mut waiting = Vec::with_capacity(PACKED_MAX);
    for run in runs {
        let mut left = run.rows;
        while left > 0 {
            if waiting.len() % 8 == 0 && left >= RUN_MIN {
                pack(&mut waiting, width, out);
                write_varint(u64::from(left) << 1, out);
                out.extend_from_slice(&run.value.to_le_bytes()[..width.div_ceil(8) as usize]);
                break;
            }
            if waiting.len() == PACKED_MAX {
                pack(&mut waiting, width, out);
            }
            waiting.push(run.value);
            left -= 1;
        }
    }
    pack(&mut waiting, width, out);
}

/// Appends what waits, with zeros up to a multiple of eight, and empties it.
fn pack(waiting: &mut Vec<u32>, width: u32, out: &mut Vec<u8>) {
    if waiting.is_empty() {
        return;
    }
    waiting.resize(waiting.len().next_multiple_of(8), 0);
    write_varint((waiting.len() as u64 / 8) << 1 | 1, out);
    let (mut bits, mut filled) = (0_u64, 0);
    for number in waiting.drain(..) {
        bits |= u64::from(number) << filled;
        filled += width;
        while filled >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            filled -= 8;
        }
    }
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runs(runs: &[(u32, u32)]) -> Vec<Run> {
        runs.iter().map(|&(value, rows)| Run { value, rows }).collect()
    }

    /// After the words of the format's description, as slowly as it pleases.
    fn read(bytes: &[u8], width: u32, numbers: usize) -> Vec<u32> {
        let (mut at, mut read) = (0, Vec::new());
        while read.len() < numbers {
            let (mut head, mut shift) = (0_u64, 0);
            loop {
                head |= u64::from(bytes[at] & 0x7F) << shift;
                shift += 7;
                at += 1;
                if bytes[at - 1] & 0x80 == 0 {
                    break;
                }
            }
            if head & 1 == 0 {
                let mut value = [0; 4];
                let length = width.div_ceil(8) as usize;
                value[..length].copy_from_slice(&bytes[at..at + length]);
                at += length;
                read.extend(std::iter::repeat_n(u32::from_le_bytes(value), (head >> 1) as usize));
            } else {
                let packed = (head >> 1) as usize * 8;
                let bit = |n: usize| u32::from(bytes[at + n / 8] >> (n % 8) & 1);
                for n in 0..packed {
                    let first = n * width as usize;
                    read.push((0..width).map(|i| bit(first + i as usize) << i).sum());
                }
                at += packed / 8 * width as usize;
            }
        }
        assert_eq!(at, bytes.len(), "all is read");
        read.truncate(numbers);
        read
    }

    #[test]
    fn a_number_of_values_needs_the_bits_of_its_last() {
        let widths: Vec<u32> = [0, 1, 2, 3, 4, 5, 256, 257].into_iter().map(width).collect();
        assert_eq!(widths, [0, 0, 1, 2, 2, 3, 8, 9]);
    }

    /// The example of the format's description: 0 to 7 in three bits each.
    #[test]
    fn eight_numbers_are_packed_from_the_lowest_bit_on() {
        let mut out = Vec::new();
        write(&runs(&[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)]), 3, &mut out);
        assert_eq!(out, [0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010]);
    }

    #[test]
    fn equal_numbers_are_one_number_and_a_count() {
        let mut out = Vec::new();
        write(&runs(&[(300, 1_000)]), 9, &mut out);
        assert_eq!(out, [0xD0, 0x0F, 0x2C, 0x01]);
        out.clear();
        write(&runs(&[(0, 5)]), 0, &mut out);
        assert_eq!(out, [0b11], "where there is one value, nothing is left to say");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(list in prop::collection::vec((0_u32..1000, 1_u32..40), 0..200), longest in 0_u32..2_000) {
            let mut list = runs(&list);
            list.push(Run { value: 999, rows: longest + 1 });
            let numbers: Vec<u32> =
                list.iter().flat_map(|run| std::iter::repeat_n(run.value, run.rows as usize)).collect();
            let mut out = Vec::new();
            write(&list, width(1000), &mut out);
            prop_assert_eq!(read(&out, width(1000), numbers.len()), numbers);
        }
    }
}
