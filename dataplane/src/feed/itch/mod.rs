//! NASDAQ TotalView-ITCH 5.0: message views ([`messages`]), those about orders without a branch on their type
//! ([`orders`]), and field encodings ([`wire`]).

mod decoder;
pub mod messages;
pub mod orders;
pub mod wire;

pub use decoder::Itch;
pub use messages::{Common, DecodeError, MESSAGE_BYTES_MAX, Message, length_of};
pub use orders::OrderMessage;
pub use wire::{Code, Nanoseconds, Price4, Price8, Side, Text};

#[cfg(test)]
mod tests {
    use super::messages::*;
    use super::*;
    use crate::feed::Symbol;

    fn common() -> Common {
        Common {
            stock_locate: 0x0102,
            tracking_number: 0x0304,
            timestamp: Nanoseconds(0xffff_ffff_fffe),
        }
    }

    #[test]
    fn lengths_are_the_specifications() {
        let expected = [
            (b'S', 12),
            (b'R', 39),
            (b'H', 25),
            (b'Y', 20),
            (b'L', 26),
            (b'V', 35),
            (b'W', 12),
            (b'K', 28),
            (b'J', 35),
            (b'h', 21),
            (b'A', 36),
            (b'F', 40),
            (b'E', 31),
            (b'C', 36),
            (b'X', 23),
            (b'D', 19),
            (b'U', 35),
            (b'P', 44),
            (b'Q', 40),
            (b'B', 19),
            (b'I', 50),
            (b'N', 20),
            (b'O', 48),
        ];
        assert_eq!(CODES, expected.map(|(code, _)| code));
        for code in 0..=u8::MAX {
            let length = expected.iter().find(|(known, _)| *known == code).map(|(_, bytes)| *bytes);
            assert_eq!(length_of(code), length);
        }
    }

    #[test]
    fn a_message_of_another_length_is_refused() {
        for &code in CODES {
            let length = length_of(code).unwrap();
            for bytes in 1..=64 {
                let mut message = [0; 64];
                message[0] = code;
                let decoded = Message::decode(&message[..bytes]);
                match bytes == length {
                    true => assert_eq!(decoded.unwrap().code(), code),
                    false => {
                        assert_eq!(decoded, Err(DecodeError::WrongLength { code, bytes }));
                    }
                }
            }
        }
        assert_eq!(Message::decode(&[]), Err(DecodeError::Empty));
        assert_eq!(Message::decode(b"T\0\0\0\0"), Err(DecodeError::UnknownType { code: b'T' }));
    }

    /// Types no capture holds: bytes written by hand from the specification's offsets.
    #[test]
    fn fields_of_the_rare_messages() {
        let bytes = IpoQuotingPeriod::encode(
            common(),
            Symbol(*b"FIRM    "),
            34_200,
            Code(b'A'),
            Price4(310_000),
        );
        assert_eq!(
            bytes[..],
            *b"K\x01\x02\x03\x04\xff\xff\xff\xff\xff\xfeFIRM    \0\0\x85\x98A\0\x04\xba\xf0"
        );
        let message = IpoQuotingPeriod::view(&bytes).unwrap();
        assert_eq!(message.common(), common());
        assert_eq!(message.quotation_release_time(), 34_200);
        assert_eq!(message.ipo_price(), Price4(310_000));

        let mut bytes = [0; 48];
        bytes[0] = b'O';
        bytes[11..19].copy_from_slice(b"DLCR    ");
        bytes[19] = b'Y';
        for (offset, value) in [(20, 1u32), (24, 2), (28, 3), (40, 5), (44, 6)] {
            bytes[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
        }
        bytes[32..40].copy_from_slice(&4u64.to_be_bytes());
        let Message::DirectListing(message) = Message::decode(&bytes).unwrap() else { panic!() };
        assert_eq!(message.stock().trimmed(), b"DLCR");
        assert_eq!(message.open_eligibility_status(), Code(b'Y'));
        assert_eq!(message.minimum_price(), Price4(1));
        assert_eq!(message.maximum_price(), Price4(2));
        assert_eq!(message.near_execution_price(), Price4(3));
        assert_eq!(message.near_execution_time_ns(), 4);
        assert_eq!(message.lower_collar(), Price4(5));
        assert_eq!(message.upper_collar(), Price4(6));

        let bytes = MwcbDeclineLevel::encode(common(), Price8(1), Price8(2), Price8(1 << 40));
        assert_eq!(bytes[18], 1);
        assert_eq!(bytes[26], 2);
        assert_eq!(bytes[27..], [0, 0, 1, 0, 0, 0, 0, 0]);

        let bytes =
            CrossTrade::encode(common(), 1 << 33, Symbol(*b"AAPL    "), Price4(7), 9, Code(b'O'));
        assert_eq!(bytes[11..19], (1u64 << 33).to_be_bytes());
        assert_eq!((bytes[19], bytes[30], bytes[38], bytes[39]), (b'A', 7, 9, b'O'));
    }

    #[test]
    fn text_shows_every_field() {
        let bytes = AddOrder::encode(
            common(),
            7,
            Side::Buy.code(),
            100,
            Symbol(*b"IVOO    "),
            Price4(873_900),
        );
        assert_eq!(
            format!("{:?}", AddOrder::view(&bytes).unwrap()),
            "AddOrder { stock_locate: 258, tracking_number: 772, timestamp: 281474976710654, \
             order: 7, side: 'B', shares: 100, stock: Symbol(IVOO), price: 87.3900 }"
        );
    }
}
