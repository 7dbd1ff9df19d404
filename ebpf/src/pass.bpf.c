/* Passes every frame. veth needs an XDP program on both ends before XDP_TX and XDP_REDIRECT frames
 * arrive, and a bridge port before replies cross it; the far end has nothing to decide.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

SEC("xdp")
int pass(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_PASS;
}
