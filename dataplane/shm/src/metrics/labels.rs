//! The values that divide a metric, such as the reason of a drop.
//!
//! Add a value here and it has a slot, an export and a place in the layout hash. Order is the order
//! of the slots.

/// The values of one set of Prometheus labels.
#[derive(Debug, PartialEq, Eq)]
pub struct LabelSet {
    /// Label names; almost always one.
    pub keys: &'static [&'static str],
    /// One row per slot; each row has one value per key.
    pub values: &'static [&'static [&'static str]],
}

/// An enum whose variants are the rows of a [`LabelSet`], numbered from 0.
pub trait Label: 'static + Copy {
    /// Keys and values.
    const SET: LabelSet;
    /// All variants, in order.
    const ALL: &'static [Self];
    /// Position of this variant.
    fn index(self) -> usize;
}

macro_rules! labels {
    ($(
        $(#[$doc:meta])*
        $name:ident $keys:tt { $( $(#[$vdoc:meta])* $variant:ident $values:tt, )+ }
    )+) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$vdoc])* $variant, )+
        }

        impl Label for $name {
            const SET: LabelSet = LabelSet { keys: &$keys, values: &[$( &$values ),+] };
            const ALL: &'static [Self] = &[$( Self::$variant ),+];
            #[inline(always)]
            fn index(self) -> usize {
                self as usize
            }
        }
    )+ };
}

labels! {
    /// Why a worker dropped a packet that XDP had given it.
    RxDrop ["reason"] {
        /// The frame does not parse as Ethernet, IP and UDP.
        Malformed ["malformed"],
        /// IPv4 header checksum wrong.
        IpChecksum ["ip_checksum"],
        /// UDP checksum wrong, or zero over IPv6.
        UdpChecksum ["udp_checksum"],
        /// A descriptor outside the UMEM or of a frame not in the kernel.
        Descriptor ["descriptor"],
        /// No application listens on the destination port.
        NoApplication ["no_application"],
        /// The application refused the request: not its protocol, or too short.
        BadRequest ["bad_request"],
    }

    /// Why a worker did not send a datagram.
    TxDrop ["reason"] {
        /// No free frame, or the TX ring is full.
        NoFrame ["no_frame"],
        /// No route to the receiver.
        NoRoute ["no_route"],
        /// A route but no neighbour; the supervisor has been asked.
        NoNeighbour ["no_neighbour"],
        /// The payload exceeds the MTU.
        TooLong ["too_long"],
        /// The kernel refused the send.
        Kernel ["kernel"],
    }

    /// Where the frames of a UMEM are.
    FrameOwner ["state"] {
        /// In the pool.
        Free ["free"],
        /// Held by the worker.
        Held ["held"],
        /// In the kernel for reception.
        Rx ["rx"],
        /// In the kernel for transmission.
        Tx ["tx"],
    }

    /// What the steering program did with a frame, and why. Same names and order as the list in
    /// `ebpf/src/intf.h`.
    XdpVerdict ["action", "reason"] {
        /// The frame ends inside its link header.
        LinkTruncated ["pass", "link_truncated"],
        /// More than two VLAN tags.
        VlanDepth ["pass", "vlan_depth"],
        /// Neither IPv4 nor IPv6.
        NotIp ["pass", "not_ip"],
        /// The IP header is cut short or contradicts itself.
        IpMalformed ["pass", "ip_malformed"],
        /// The interface is not ours.
        UnknownInterface ["pass", "unknown_interface"],
        /// Not for our MAC.
        OtherMac ["pass", "other_mac"],
        /// The destination address is not served.
        OtherAddress ["pass", "other_address"],
        /// An IP fragment.
        Fragment ["pass", "fragment"],
        /// An IPv6 header chain not followed to its end.
        ExtensionHeaders ["pass", "extension_headers"],
        /// Neither UDP nor TCP.
        OtherProtocol ["pass", "other_protocol"],
        /// The frame ends before the ports.
        TransportTruncated ["pass", "transport_truncated"],
        /// No service on this port.
        OtherPort ["pass", "other_port"],
        /// TCP to a port of ours from a listed source.
        TcpListed ["pass", "tcp_listed"],
        /// Longer than a UMEM chunk holds.
        TooLong ["pass", "too_long"],
        /// The arriving queue has no socket.
        NoSocket ["pass", "no_socket"],
        /// The driver has no room for the receive stamp.
        NoMetadata ["pass", "no_metadata"],
        /// A source address that cannot be.
        SourceInvalid ["drop", "source_invalid"],
        /// UDP from a source that is not on the list.
        SourceUnlisted ["drop", "source_unlisted"],
        /// TCP from a source that is not on the list.
        TcpSourceUnlisted ["drop", "tcp_source_unlisted"],
        /// From a listed source that has used up its packets.
        PacketLimit ["drop", "packet_limit"],
        /// From a listed source that has used up its bytes.
        ByteLimit ["drop", "byte_limit"],
        /// The IP length is impossible.
        IpLength ["drop", "ip_length"],
        /// The UDP length is impossible.
        UdpLength ["drop", "udp_length"],
        /// From port 0 or from a replying service: a loop.
        SourcePort ["drop", "source_port"],
        /// A copy of feed messages that were applied.
        FeedApplied ["drop", "feed_applied"],
        /// A get of a hot key: answered in the driver.
        HotHit ["tx", "hot_hit"],
        /// Handed to the AF_XDP socket.
        Redirected ["redirect", "redirected"],
    }

    /// The verbs of the cache protocol.
    CacheVerb ["verb"] {
        /// `get`, one per key.
        Get ["get"],
        /// `gets`, one per key.
        Gets ["gets"],
        /// `gat`, one per key.
        Gat ["gat"],
        /// `gats`, one per key.
        Gats ["gats"],
        /// `set`.
        Set ["set"],
        /// `add`.
        Add ["add"],
        /// `replace`.
        Replace ["replace"],
        /// `append`.
        Append ["append"],
        /// `prepend`.
        Prepend ["prepend"],
        /// `cas`.
        Cas ["cas"],
        /// `delete`.
        Delete ["delete"],
        /// `incr`.
        Incr ["incr"],
        /// `decr`.
        Decr ["decr"],
        /// `touch`.
        Touch ["touch"],
        /// `flush_all`.
        FlushAll ["flush_all"],
        /// `stats`.
        Stats ["stats"],
        /// `version`.
        Version ["version"],
        /// `verbosity`.
        Verbosity ["verbosity"],
        /// `mg`.
        Mg ["mg"],
        /// `ms`.
        Ms ["ms"],
        /// `md`.
        Md ["md"],
        /// `ma`.
        Ma ["ma"],
        /// `me`.
        Me ["me"],
        /// `mn`.
        Mn ["mn"],
    }

    /// What came of a change of a key.
    CacheOutcome ["outcome"] {
        /// A value was stored.
        Stored ["stored"],
        /// A delete found its key.
        DeleteHit ["delete_hit"],
        /// And did not.
        DeleteMiss ["delete_miss"],
        /// An increment found its key.
        IncrHit ["incr_hit"],
        /// And did not.
        IncrMiss ["incr_miss"],
        /// A decrement found its key.
        DecrHit ["decr_hit"],
        /// And did not.
        DecrMiss ["decr_miss"],
        /// A compare-and-swap stored.
        CasHit ["cas_hit"],
        /// It did not find its key.
        CasMiss ["cas_miss"],
        /// It found another version.
        CasBadVersion ["cas_bad_version"],
        /// A touch found its key.
        TouchHit ["touch_hit"],
        /// And did not.
        TouchMiss ["touch_miss"],
    }

    /// Who read a key that the worker was told of.
    HitPath ["path"] {
        /// Through the front.
        Front ["front"],
        /// Through another worker, at whose queue the request arrived.
        Worker ["worker"],
        /// By programs of this host that map the cache.
        Reader ["reader"],
    }

    /// How a cache request was refused.
    CacheError ["reason"] {
        /// Not a command (`ERROR`).
        UnknownCommand ["unknown_command"],
        /// Malformed arguments (`CLIENT_ERROR`).
        BadFormat ["bad_format"],
        /// The key is longer than 250 bytes or holds a control byte.
        BadKey ["bad_key"],
        /// The value is longer than the limit.
        ValueTooLarge ["value_too_large"],
        /// No memory even after eviction (`SERVER_ERROR`).
        OutOfMemory ["out_of_memory"],
        /// The reply needs more than 64 datagrams.
        ReplyTooLarge ["reply_too_large"],
        /// The UDP frame header is missing or names a request of several datagrams.
        FrameHeader ["frame_header"],
        /// A client wanted to change what a feed publishes.
        FeedOwned ["feed_owned"],
        /// More requests of a kind that costs much than are answered in a time.
        Throttled ["throttled"],
        /// Keys of several workers in a command that changes them, or one that the front sent to another
        /// worker than the key's.
        NotOurs ["other_worker"],
        /// The source may not do that with this cache (`CLIENT_ERROR`), or nothing at all.
        Forbidden ["forbidden"],
    }

    /// Why bytes of a feed were not decoded.
    FeedError ["reason"] {
        /// The packet is shorter than its header.
        ShortHeader ["short_header"],
        /// A message block reaches past the end of its packet.
        TruncatedMessage ["truncated_message"],
        /// Sequence numbers out of range.
        BadSequence ["bad_sequence"],
        /// A datagram of another protocol than the feed's.
        OtherProtocol ["other_protocol"],
        /// A message of a type the protocol does not define.
        UnknownType ["unknown_type"],
        /// A message whose length is not that of its type.
        MessageLength ["message_length"],
        /// A field with a value the protocol does not define.
        BadField ["bad_field"],
        /// An order added twice, or reduced by more than it has.
        Inconsistent ["inconsistent"],
        /// A packet of another session than the channel's.
        OtherSession ["other_session"],
        /// Memory for books, orders or symbols is used up.
        Capacity ["capacity"],
        /// The cache refused the record.
        Publish ["publish"],
    }

    /// The lines of a feed, in the order of the node file.
    FeedLine ["line"] {
        /// The section's own group and port.
        A ["A"],
        /// The first of its `lines`.
        B ["B"],
        /// The second.
        C ["C"],
    }

    /// How a hole in the sequence of a feed ended.
    HoleEnd ["end"] {
        /// What was missing came in time.
        Healed ["healed"],
        /// Its limit was over.
        Late ["late"],
        /// No more packets could be held behind it.
        NoRoom ["no_room"],
        /// Another session began.
        SessionOver ["session_over"],
    }

    /// What became of a neighbour request.
    NeighbourOutcome ["outcome"] {
        /// The kernel was asked to resolve it.
        Asked ["asked"],
        /// Dropped: asked for too recently or too many at once.
        Suppressed ["suppressed"],
        /// The ring held something that is no request.
        Invalid ["invalid"],
    }

    /// Why the front did not keep a connection, or ended it.
    ConnectionEnd ["reason"] {
        /// As many as `front.max_connections` are open already.
        Limit ["limit"],
        /// The source is not on the cache's list.
        Source ["source"],
        /// Nothing came for `front.idle_timeout_s`.
        Idle ["idle"],
        /// The client takes no answers.
        Slow ["slow"],
        /// A line without an end, or memory for its command is used up.
        Unbounded ["unbounded"],
        /// The client closed it, or said `quit`.
        Client ["client"],
        /// The connection broke.
        Broken ["broken"],
        /// Its cache was removed.
        Removed ["removed"],
        /// The node drains, and its time was over.
        Drained ["drained"],
    }

    /// How the fetching of a feed's snapshot ended.
    SnapshotEnd ["end"] {
        /// All of it was handed to the worker.
        Complete ["complete"],
        /// No connection to the server.
        Connect ["connect"],
        /// The password cannot be read, or the server does not let us in.
        Login ["login"],
        /// Not SoupBinTCP, or not a snapshot.
        Protocol ["protocol"],
        /// It is of another session than the feed's.
        Session ["session"],
        /// The server closed the connection before the end.
        Closed ["closed"],
        /// The worker wanted another one meanwhile.
        Abandoned ["abandoned"],
    }

    /// Why a subscription to a feed's records was refused, or ended.
    SubscriptionReason ["reason"] {
        /// The request is of another layout.
        Malformed ["malformed"],
        /// The request is of another version.
        Version ["version"],
        /// No prefix of the source may have anything.
        NotEntitled ["not_entitled"],
        /// Kinds of records that the source may not have, or none.
        Records ["records"],
        /// Levels that the source may not have, or that are not published.
        Depth ["depth"],
        /// Symbols that the source may not have.
        Symbols ["symbols"],
        /// There are as many subscribers as there may be.
        Full ["full"],
        /// The source has as many subscriptions as it may have.
        TooMany ["too_many"],
        /// There is no such subscription.
        Unknown ["unknown"],
        /// The subscriber did not keep up.
        Slow ["slow"],
        /// It was not renewed in time.
        Lease ["lease"],
        /// The subscriber asked for it.
        Unsubscribed ["unsubscribed"],
        /// Another subscription has its name.
        Other ["other"],
        /// The node's kill switch is on.
        Halted ["halted"],
    }

    /// How a connection to the snapshot server of a feed that is given out again ended.
    ServedSnapshot ["end"] {
        /// All of a snapshot was sent.
        Sent ["sent"],
        /// Wrong user or password, or another session or number than there is.
        Rejected ["rejected"],
        /// The books cannot be believed at the moment.
        NotExact ["not_exact"],
        /// The books could no longer be believed, or their worker died, before all was told.
        Void ["void"],
        /// The client took nothing, or too little, for too long.
        Slow ["slow"],
        /// The client left, broke the protocol, or did not log in.
        Left ["left"],
        /// As many clients as there may be.
        Limit ["limit"],
        /// The source is not among `access.sources`.
        Source ["source"],
    }

    /// What became of the ways in which a feed gets back what no line brought.
    Recovery ["what"] {
        /// Requests sent.
        Requests ["requests"],
        /// Requests without a reply in time.
        Timeouts ["timeouts"],
        /// Replies that brought something asked for.
        Replies ["replies"],
        /// Replies from elsewhere, of another session, not asked for, or malformed.
        RefusedReplies ["refused_replies"],
        /// Times the request servers were given up.
        Exhausted ["exhausted"],
        /// Snapshots asked for.
        Snapshots ["snapshots"],
        /// Snapshots applied.
        SnapshotsLoaded ["snapshots_loaded"],
        /// Snapshots that failed or did not come.
        SnapshotsFailed ["snapshots_failed"],
        /// Live packets for which there was no room meanwhile.
        QueueDropped ["queue_dropped"],
    }

    /// Packets that a feed is given out again in.
    Republished ["kind"] {
        /// With messages.
        Messages ["messages"],
        /// Heartbeats.
        Heartbeats ["heartbeats"],
        /// Announcements of the end of a session.
        Ends ["ends"],
        /// Not taken by the port at first, and tried again.
        Refused ["refused"],
    }

    /// What became of a request for messages that were lost of a feed given out again.
    RequestEnd ["end"] {
        /// Answered.
        Answered ["answered"],
        /// Not 20 bytes.
        Length ["length"],
        /// Of another session.
        Session ["session"],
        /// No message was asked for.
        ZeroCount ["zero_count"],
        /// Older than what is kept, or never had.
        Gone ["gone"],
        /// Not given out yet.
        NotYet ["not_yet"],
        /// The message does not fit a packet.
        TooLong ["too_long"],
        /// The source, or all sources together, ask too often.
        Flood ["flood"],
        /// Answered, and the port did not take the answer.
        Unsent ["unsent"],
    }
}
