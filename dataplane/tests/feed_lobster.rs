//! Real order flow: the best five levels a side after each event, against the recorded book.

#[path = "support/lobster.rs"]
mod lobster;
mod support;

use lobster::{LOCATE, Levels, convert};
use nautilus_dataplane::feed::book::{BookLimits, Books};
use nautilus_dataplane::feed::itch::{Message, Side};
use support::market_data;

fn best_five(books: &Books, side: Side) -> Levels {
    books.levels(LOCATE, side).take(5).map(|level| (level.price, level.shares)).collect()
}

#[test]
fn the_best_five_levels_equal_the_recorded_book_after_every_event() {
    let Some(data) = market_data("the_best_five_levels_equal_the_recorded_book_after_every_event")
    else {
        return;
    };
    let file = |kind: &str| data.join(format!("lobster/AAPL_2012-06-21_{kind}_10.first400.csv"));
    let events = convert(&file("message"), &file("orderbook"));
    let limits = BookLimits { orders_max: 4096, levels_max: 1024, hash_seed: 11 };
    let mut books = Books::new(limits);
    let apply = |messages: &[Vec<u8>], books: &mut Books| {
        for bytes in messages {
            let message = Message::decode(bytes).unwrap();
            let (_, problem) = books.apply(&message);
            assert_eq!(problem, None, "{message:?}");
        }
    };
    let mut compared = 0;
    for (index, event) in events.iter().enumerate() {
        apply(&event.messages, &mut books);
        for (side, levels) in [(Side::Sell, &event.book.asks), (Side::Buy, &event.book.bids)] {
            assert_eq!(best_five(&books, side), levels[..5], "row {index}, {side:?}");
        }
        compared += usize::from(index != 0);
        apply(&event.learnt, &mut books);
        for (side, levels) in [(Side::Sell, &event.book.asks), (Side::Buy, &event.book.bids)] {
            assert_eq!(best_five(&books, side), levels[..5], "learning row {index}, {side:?}");
        }
    }
    assert_eq!(compared, 399);
}
