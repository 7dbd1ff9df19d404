//! Every metric of the data plane. Add a row here and nowhere else.
//!
//! A row: constant, kind, Prometheus name, unit, owner, help; `by X` adds the labels of
//! [`super::labels`]. Names are `nautilus_<subject>_<what>[_<base unit>][_total]`, subject singular.
//! Times are stored in nanoseconds and exported in seconds.

use super::labels::{
    CacheError, CacheOutcome, CacheVerb, ConnectionEnd, FeedError, FeedLine, FrameOwner, HitPath,
    HoleEnd, Label, LabelSet, NeighbourOutcome, Recovery, Republished, RequestEnd, RxDrop,
    ServedSnapshot, SnapshotEnd, SubscriptionReason, TxDrop, XdpVerdict,
};
use super::{Counter, CounterBy, Gauge, GaugeBy, Kind, MetricSpec, Owner, Unit, slot_of};

macro_rules! kind {
    (counter) => {
        Kind::Counter
    };
    (gauge) => {
        Kind::Gauge
    };
}

macro_rules! handle {
    ($(#[$doc:meta])* $id:ident counter) => {
        $(#[$doc])* pub const $id: Counter = Counter(slot_of(Row::$id as usize));
    };
    ($(#[$doc:meta])* $id:ident gauge) => {
        $(#[$doc])* pub const $id: Gauge = Gauge(slot_of(Row::$id as usize));
    };
    ($(#[$doc:meta])* $id:ident counter $label:ident) => {
        $(#[$doc])* pub const $id: CounterBy<$label> = CounterBy::new(slot_of(Row::$id as usize));
    };
    ($(#[$doc:meta])* $id:ident gauge $label:ident) => {
        $(#[$doc])* pub const $id: GaugeBy<$label> = GaugeBy::new(slot_of(Row::$id as usize));
    };
}

macro_rules! label_set {
    () => {
        None
    };
    ($label:ident) => {{
        const SET: LabelSet = <$label as Label>::SET;
        Some(&SET)
    }};
}

macro_rules! metric_table {
    ($( $id:ident $kind:ident $name:literal $unit:ident $owner:ident $(by $label:ident)? : $help:literal; )+) => {
        /// Positions in [`METRICS`].
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Row { $( $id ),+ }

        /// The whole table, in slot order.
        pub const METRICS: &[MetricSpec] = &[ $( MetricSpec {
            name: $name,
            kind: kind!($kind),
            unit: Unit::$unit,
            owner: Owner::$owner,
            labels: label_set!($($label)?),
            help: $help,
        } ),+ ];

        $( handle!(#[doc = $help] $id $kind $($label)?); )+
    };
}

metric_table! {
    // Worker: packets.
    RX_PACKETS counter "nautilus_worker_rx_packets_total" Packets Worker: "Packets taken from the receive ring or socket";
    RX_BYTES counter "nautilus_worker_rx_bytes_total" Bytes Worker: "Bytes of those packets as the port saw them";
    TX_PACKETS counter "nautilus_worker_tx_packets_total" Packets Worker: "Packets given to the transmit ring or socket";
    TX_BYTES counter "nautilus_worker_tx_bytes_total" Bytes Worker: "Bytes of those packets";
    RX_DROPPED_PACKETS counter "nautilus_worker_rx_dropped_packets_total" Packets Worker by RxDrop: "Packets received and not handled";
    TX_DROPPED_PACKETS counter "nautilus_worker_tx_dropped_packets_total" Packets Worker by TxDrop: "Datagrams an application wanted to send and the port did not";
    RX_UNSTAMPED_PACKETS counter "nautilus_worker_rx_unstamped_packets_total" Packets Worker: "Packets that came without the receive stamp of the steering program";
    ECHOED_PACKETS counter "nautilus_worker_echoed_packets_total" Packets Worker: "Datagrams answered by the echo application";
    // Worker: rings.
    FRAMES gauge "nautilus_worker_frames" Frames Worker by FrameOwner: "Frames of the packet memory by owner";
    FRAMES_LOST counter "nautilus_worker_lost_frames_total" Frames Worker: "Times the frame states did not add up to the frames of the packet memory";
    // Worker: loop.
    LOOPS counter "nautilus_worker_loops_total" Events Worker: "Turns of the run loop";
    LOOPS_IDLE counter "nautilus_worker_idle_loops_total" Events Worker: "Turns that found nothing to do";
    BUSY_NS counter "nautilus_worker_busy_seconds_total" Nanoseconds Worker: "Time in turns that did something";
    IDLE_NS counter "nautilus_worker_idle_seconds_total" Nanoseconds Worker: "Time in turns that found nothing to do, sleep included";
    SLEEPS counter "nautilus_worker_sleeps_total" Events Worker: "Times the worker blocked for packets";
    SYSCALLS counter "nautilus_worker_syscalls_total" Events Worker: "System calls of the run loop";
    NEXT_HOP_BUSY counter "nautilus_worker_next_hop_busy_total" Events Worker: "Next-hop reads given up because the table kept changing";
    NEIGHBOUR_REQUESTS counter "nautilus_worker_neighbour_requests_total" Events Worker: "Neighbours asked for";
    NEIGHBOUR_REQUESTS_FULL counter "nautilus_worker_neighbour_requests_full_total" Events Worker: "Neighbour requests not made because the ring was full";
    // Cache.
    CACHE_REQUESTS counter "nautilus_cache_requests_total" Events Cache by CacheVerb: "Requests by verb, a get of several keys once a key";
    CACHE_ERRORS counter "nautilus_cache_errors_total" Events Cache by CacheError: "Requests refused";
    CACHE_HITS counter "nautilus_cache_hits_total" Events Cache: "Keys found by the worker; those found in XDP, by the front and by readers of this host are not in it";
    CACHE_MISSES counter "nautilus_cache_misses_total" Events Cache: "Keys not found, suspect ones included";
    CACHE_OUTCOMES counter "nautilus_cache_outcomes_total" Events Cache by CacheOutcome: "What came of changes of keys";
    CACHE_SUSPECTS counter "nautilus_cache_suspects_total" Events Cache: "Keys found but suspect, answered as a miss";
    CACHE_SAMPLED_HITS counter "nautilus_cache_sampled_hits_total" Events Cache by HitPath: "Hits of others that they told the worker of, a sample: all of few, a random share of many";
    CACHE_SAMPLED_STRAY counter "nautilus_cache_sampled_stray_total" Events Cache: "Told hits of no key that is there: it went meanwhile, or never was";
    CACHE_SAMPLED_OVERRUNS counter "nautilus_cache_sampled_overruns_total" Events Cache: "Times told hits were written over before the worker looked";
    CACHE_EVICTIONS counter "nautilus_cache_evictions_total" Items Cache: "Items removed to make room";
    CACHE_EXPIRATIONS counter "nautilus_cache_expirations_total" Items Cache: "Items removed because their time was over";
    CACHE_ITEMS gauge "nautilus_cache_items" Items Cache: "Items in the cache";
    CACHE_USED_BYTES gauge "nautilus_cache_used_bytes" Bytes Cache: "Memory that items occupy";
    CACHE_LIMIT_BYTES gauge "nautilus_cache_limit_bytes" Bytes Cache: "Memory that items may occupy";
    CACHE_SPLIT_REPLIES counter "nautilus_cache_split_replies_total" Events Cache: "Replies that took more than one datagram";
    FORWARDED_COMMANDS counter "nautilus_worker_forwarded_commands_total" Events Worker: "Commands of the front executed";
    FORWARDED_DAMAGED counter "nautilus_worker_damaged_commands_total" Events Worker: "Messages of the front that made no sense";
    ANSWERS_DROPPED counter "nautilus_worker_dropped_answers_total" Events Worker: "Answers not given because the front that asked is dead";
    SENT_ON counter "nautilus_worker_sent_on_datagrams_total" Packets Worker: "Datagrams handed to the worker that owns the key or the feed";
    SENT_ON_DROPPED counter "nautilus_worker_sent_on_dropped_total" Packets Worker: "Those that found no room";
    TAKEN_ON counter "nautilus_worker_taken_on_datagrams_total" Packets Worker: "Datagrams and answers taken from other workers";
    TAKEN_ON_DROPPED counter "nautilus_worker_taken_on_dropped_total" Packets Worker: "Those that were too old, or made no sense";
    WORKER_WAKES counter "nautilus_worker_wakes_total" Events Worker: "Times another worker was woken";
    // Feed.
    FEED_PACKETS counter "nautilus_feed_packets_total" Packets Worker: "Feed packets received";
    FEED_HEARTBEATS counter "nautilus_feed_heartbeats_total" Packets Worker: "Feed packets without a message";
    FEED_DUPLICATE_PACKETS counter "nautilus_feed_duplicate_packets_total" Packets Worker: "Feed packets with nothing new: applied already, or held; with several lines all but the first copy";
    FEED_MESSAGES counter "nautilus_feed_messages_total" Messages Worker: "Feed messages applied";
    FEED_GAPS counter "nautilus_feed_gaps_total" Events Worker: "Gaps in the sequence of a channel";
    FEED_HELD_PACKETS counter "nautilus_feed_held_packets_total" Packets Worker: "Feed packets that came before their turn and were held";
    FEED_HOLES counter "nautilus_feed_holes_total" Events Worker by HoleEnd: "Holes in the sequence before held packets by how they ended, each but a healed one a gap";
    FEED_LINE_MESSAGES counter "nautilus_feed_line_messages_total" Messages Worker by FeedLine: "Messages received on a line, each sequence number once";
    FEED_LINE_FIRST counter "nautilus_feed_line_first_messages_total" Messages Worker by FeedLine: "Messages that a line delivered before the others of its feed";
    FEED_LINE_LOST counter "nautilus_feed_line_lost_messages_total" Messages Worker by FeedLine: "Messages missing on a line when 65,536 later ones had been named, or their session was over";
    FEED_LINE_DUPLICATES counter "nautilus_feed_line_duplicate_messages_total" Messages Worker by FeedLine: "Messages received again on the same line";
    FEED_RECOVERY counter "nautilus_feed_recovery_total" Events Worker by Recovery: "What was done to get back what no line brought";
    FEED_RECOVERED_MESSAGES counter "nautilus_feed_recovered_messages_total" Messages Worker: "Messages that replies of request servers brought first";
    FEED_SNAPSHOT_MESSAGES counter "nautilus_feed_snapshot_messages_total" Messages Worker: "Messages of snapshots";
    FEED_LINE_DROPPED_PACKETS counter "nautilus_feed_line_xdp_dropped_packets_total" Packets Worker by FeedLine: "Packets of a line dropped in XDP because all of their messages had been applied; counted as received too";
    FEED_LINE_DROPPED_MESSAGES counter "nautilus_feed_line_xdp_dropped_messages_total" Messages Worker by FeedLine: "Messages of those";
    FEED_ORDERS_ADDED counter "nautilus_feed_added_orders_total" Orders Worker: "Orders added to books";
    FEED_TRADES counter "nautilus_feed_trades_total" Events Worker: "Trades, crosses among them; broken ones stay";
    FEED_TRADED_SHARES counter "nautilus_feed_traded_shares_total" Shares Worker: "Shares of those";
    FEED_TRADED_VALUE counter "nautilus_feed_traded_value_total" Money Worker: "Price times shares of those, in units of the currency";
    FEED_CROSSED_RECORDS counter "nautilus_feed_crossed_records_total" Events Worker: "Best bids and offers published that crossed or were locked";
    FEED_LOST_MESSAGES counter "nautilus_feed_lost_messages_total" Messages Worker: "Messages missing in those gaps";
    FEED_ERRORS counter "nautilus_feed_errors_total" Events Worker by FeedError: "Packets and messages that were not applied";
    FEED_UNKNOWN_ORDERS counter "nautilus_feed_unknown_orders_total" Messages Worker: "Messages that name an order no book has";
    FEED_UPDATES counter "nautilus_feed_published_records_total" Messages Worker: "Records put into the cache";
    FEED_SUBSCRIBERS gauge "nautilus_feed_subscribers" Connections Worker: "Subscriptions to records there are";
    FEED_SUBSCRIPTIONS counter "nautilus_feed_subscriptions_total" Events Worker: "Subscriptions begun";
    FEED_SUBSCRIPTION_REFUSED counter "nautilus_feed_subscription_refused_total" Events Worker by SubscriptionReason: "Requests of subscribers that were refused";
    FEED_SUBSCRIPTION_ENDED counter "nautilus_feed_subscription_ended_total" Events Worker by SubscriptionReason: "Subscriptions that were ended";
    FEED_SUBSCRIPTION_SLOWED counter "nautilus_feed_subscription_slowed_total" Events Worker: "Subscriptions conflated because they did not keep up";
    FEED_SUBSCRIPTION_IMAGES counter "nautilus_feed_subscription_images_total" Events Worker: "Images begun, one at the beginning of each subscription among them";
    FEED_DISTRIBUTED_PACKETS counter "nautilus_feed_distributed_packets_total" Packets Worker: "Packets of records sent to subscribers";
    FEED_DISTRIBUTED_MESSAGES counter "nautilus_feed_distributed_messages_total" Messages Worker: "Messages in those";
    FEED_RESENT_MESSAGES counter "nautilus_feed_resent_messages_total" Messages Worker: "Messages sent again to subscribers that asked for them";
    FEED_RESEND_GONE counter "nautilus_feed_resend_gone_total" Events Worker: "Requests of subscribers for messages that are not there any more";
    FEED_RESEND_REFUSED counter "nautilus_feed_resend_refused_total" Events Worker: "Requests for messages by nobody's session, of messages to come, or too many at once";
    FEED_LEFT_OUT counter "nautilus_feed_left_out_records_total" Messages Worker: "Records that newer ones took the place of before they were sent to a conflated subscriber";
    FEED_DISTRIBUTION_DELAYED counter "nautilus_feed_distribution_delayed_packets_total" Packets Worker: "Packets to subscribers that the port did not take at once";
    FEED_REPUBLISHED_PACKETS counter "nautilus_feed_republished_packets_total" Packets Worker by Republished: "Packets that feeds were given out again in";
    FEED_REPUBLISHED_MESSAGES counter "nautilus_feed_republished_messages_total" Messages Worker: "Messages in those";
    FEED_UNSENT_MESSAGES counter "nautilus_feed_republished_unsent_messages_total" Messages Worker: "Messages lost on the line that a feed is given out on: the port took nothing for too long, or they fit no packet; most can be asked for";
    FEED_REQUESTS counter "nautilus_feed_republished_requests_total" Events Worker by RequestEnd: "Requests for messages lost of feeds given out again";
    FEED_REQUESTED_MESSAGES counter "nautilus_feed_republished_requested_messages_total" Messages Worker: "Messages in answers to those";
    FEED_SUSPECT_CHANNELS gauge "nautilus_feed_suspect_channels" Channels Worker: "Channels whose records are suspect";
    FEED_CHANNELS gauge "nautilus_feed_channels" Channels Worker: "Channels configured";
    FEED_BOOKS gauge "nautilus_feed_books" Books Worker: "Order books held";
    FEED_ORDERS gauge "nautilus_feed_orders" Orders Worker: "Open orders in all books";
    CAPTURED counter "nautilus_capture_records_total" Events Worker: "Frames that a worker handed to the capture process, and what else moved its feeds";
    CAPTURE_DROPPED counter "nautilus_capture_dropped_records_total" Events Worker: "Those that found the ring to the capture process full, and are missing in its files";
    CACHE_HOT_HITS counter "nautilus_cache_hot_hits_total" Events SupervisorCache: "Keys found in XDP";
    // XDP, copied from the steering program's map by the supervisor.
    XDP_PACKETS counter "nautilus_xdp_packets_total" Packets Supervisor by XdpVerdict: "Frames by what the steering program did with them, and why";
    XDP_BYTES counter "nautilus_xdp_bytes_total" Bytes Supervisor by XdpVerdict: "Bytes of those frames";
    // AF_XDP sockets, copied from the kernel by the supervisor.
    FILL_RING_EMPTY counter "nautilus_xsk_fill_ring_empty_total" Packets Supervisor: "Packets the kernel dropped because the fill ring was empty (XDP_STATISTICS)";
    RX_RING_FULL counter "nautilus_xsk_rx_ring_full_total" Packets Supervisor: "Packets the kernel dropped because the receive ring was full (XDP_STATISTICS)";
    RX_KERNEL_DROPPED counter "nautilus_xsk_rx_kernel_dropped_packets_total" Packets Supervisor: "Packets the kernel dropped for another reason (XDP_STATISTICS)";
    TX_INVALID_DESCRIPTORS counter "nautilus_xsk_tx_invalid_descriptors_total" Frames Supervisor: "Transmit descriptors the kernel refused (XDP_STATISTICS)";
    TX_RING_EMPTY counter "nautilus_xsk_tx_ring_empty_total" Events Supervisor: "Times the kernel found the transmit ring empty (XDP_STATISTICS)";
    // Supervisor.
    WORKER_STARTS counter "nautilus_supervisor_worker_starts_total" Events Supervisor: "Worker processes started";
    WORKER_DEATHS counter "nautilus_supervisor_worker_deaths_total" Events Supervisor: "Worker processes that ended without being told to";
    WORKER_HANGS counter "nautilus_supervisor_hung_workers_total" Events Supervisor: "Active workers killed because their heartbeat had stopped";
    PROMOTIONS counter "nautilus_supervisor_promotions_total" Events Supervisor: "Standbys made active";
    REBINDS counter "nautilus_supervisor_rebinds_total" Events Supervisor: "Sockets bound anew: their interface changed or, below Linux 6.4, their worker died";
    TAKEOVERS counter "nautilus_supervisor_takeovers_total" Events Supervisor: "Times a new supervisor took the node over from running workers";
    NEIGHBOURS_REQUESTED counter "nautilus_supervisor_neighbour_requests_total" Events Supervisor by NeighbourOutcome: "Neighbour requests of workers";
    NEXT_HOP_UPDATES counter "nautilus_supervisor_next_hop_updates_total" Events Supervisor: "Times the next-hop table was published";
    NEXT_HOPS_OMITTED gauge "nautilus_supervisor_next_hop_omitted_entries" Entries Supervisor: "Kernel entries that did not fit the next-hop table";
    ATTACHES counter "nautilus_supervisor_attaches_total" Events Supervisor: "Readers given read-only descriptors";
    ATTACHES_REFUSED counter "nautilus_supervisor_refused_attaches_total" Events Supervisor: "Readers refused";
    FRONT_STARTS counter "nautilus_supervisor_front_starts_total" Events Supervisor: "Front processes started";
    CAPTURE_STARTS counter "nautilus_supervisor_capture_starts_total" Events Supervisor: "Capture processes started";
    CAPTURE_DEATHS counter "nautilus_supervisor_capture_deaths_total" Events Supervisor: "Capture processes that ended without being told to";
    KILL_SWITCH gauge "nautilus_supervisor_kill_switch_state" Events Supervisor: "1 while the kill switch is on: prices are suspect and publishers silent";
    HALTS counter "nautilus_supervisor_halts_total" Events Supervisor: "Times the kill switch was turned on";
    FRONT_DEATHS counter "nautilus_supervisor_front_deaths_total" Events Supervisor: "Front processes that ended without being told to";
    // Capture process.
    CAPTURE_WRITTEN counter "nautilus_capture_written_records_total" Events Capture: "Records written to files";
    CAPTURE_BYTES counter "nautilus_capture_written_bytes_total" Bytes Capture: "Bytes written to files";
    CAPTURE_FILES counter "nautilus_capture_begun_files_total" Events Capture: "Files begun";
    CAPTURE_ERRORS counter "nautilus_capture_write_errors_total" Events Capture: "Failed attempts to make or write a file; the records wait in their rings";
    CAPTURE_DAMAGED counter "nautilus_capture_damaged_rings_total" Events Capture: "Times a ring held what no worker writes, and was emptied";
    // Front.
    FRONT_CONNECTIONS gauge "nautilus_front_connections" Connections Front: "TCP connections open";
    FRONT_ACCEPTED counter "nautilus_front_accepted_connections_total" Connections Front: "TCP connections accepted, refused ones included";
    FRONT_ENDED counter "nautilus_front_ended_connections_total" Connections Front by ConnectionEnd: "TCP connections that ended or were refused, by reason";
    FRONT_SNAPSHOTS counter "nautilus_front_snapshots_total" Events Front by SnapshotEnd: "Snapshots of feeds fetched, by how that ended";
    FRONT_SERVED_SNAPSHOTS counter "nautilus_front_served_snapshots_total" Events Front by ServedSnapshot: "Connections to the snapshot server of a feed given out again, by how they ended";
    FRONT_RX_BYTES counter "nautilus_front_rx_bytes_total" Bytes Front: "Bytes received over TCP";
    FRONT_TX_BYTES counter "nautilus_front_tx_bytes_total" Bytes Front: "Bytes sent over TCP";
    FRONT_HELD_BYTES gauge "nautilus_front_held_bytes" Bytes Front: "Memory of unfinished commands and untaken answers";
    FRONT_HITS counter "nautilus_front_hits_total" Events FrontCache: "Keys the front read from shared memory and found";
    FRONT_MISSES counter "nautilus_front_misses_total" Events FrontCache: "Keys the front read from shared memory and did not find";
    FRONT_FORBIDDEN counter "nautilus_front_forbidden_total" Events Front: "Reads the front refused: the source may not read the cache";
    FRONT_FORWARDED counter "nautilus_front_forwarded_commands_total" Events Front: "Commands handed to the worker";
    FRONT_UNKNOWN counter "nautilus_front_unknown_outcomes_total" Events Front: "Commands a worker took and died before it answered";
    FRONT_WAKES counter "nautilus_front_worker_wakes_total" Events Front: "Times a sleeping worker was woken";
    FRONT_STALE_ANSWERS counter "nautilus_front_stale_answers_total" Events Front: "Answers for a connection or a front that is gone";
    FRONT_DATAGRAMS counter "nautilus_front_rx_packets_total" Packets Front: "Datagrams received from kernel sockets";
    FRONT_DROPPED_DATAGRAMS counter "nautilus_front_rx_dropped_packets_total" Packets Front: "Those that were dropped: source not listed, no frame header, or no room";
    FRONT_SYSCALLS counter "nautilus_front_syscalls_total" Events Front: "System calls of the front's loop";
}
