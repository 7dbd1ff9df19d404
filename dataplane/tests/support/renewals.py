"""Prints how often a subscription renews: while each is answered, without answers, and once at a lease of nothing."""

import nautilus_subscriber as ns


def accepted(lease_ms):
    return ns._REPLY.pack(b"NXR1", b"A", 0, b"F", 1, 0, b"0000000001", lease_ms, 0, 0, 0)


# In parts of a second that a float holds exactly: 50 ms are 52 of them, begun ones included.
PARTS = 1024


def renewals(subscription, first, end, answers):
    count = 0
    for at in range(first, end):
        count += sum(datagram[4:5] == b"R" for datagram in subscription.poll(at / PARTS))
        if answers:
            subscription.receive(at / PARTS, accepted(2000))
    return count


wanted = ns.Subscription(["bbo"], number=1)
wanted.poll(0)
answered, unanswered = renewals(wanted, 1, 2049, True), renewals(wanted, 2049, 4097, False)
short = ns.Subscription(["bbo"], number=1)
short.poll(0)
short.receive(0, accepted(0))
print(answered, unanswered, sum(len(short.poll(0.01)) for _ in range(100)))
