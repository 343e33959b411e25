// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * The part of libibverbs that the agent needs, behind plain functions: the data path of verbs.h
 * consists of inline functions and macros, which Rust cannot call. Every function returns 0 or an
 * errno, except where its comment says otherwise.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <infiniband/verbs.h>

enum { HF_PORT = 1, HF_CQ_DEPTH = 16, HF_POLL_STEP_NS = 500 * 1000 };

struct hf_device {
	struct ibv_context *context;
	struct ibv_pd *pd;
};

/* A queue pair and the completions of nobody else, so that threads may wait for theirs at the same time. */
struct hf_pair {
	struct ibv_qp *qp;
	struct ibv_cq *cq;
	/* The id of the last request; a late completion of one that timed out earlier is passed over by it. */
	uint64_t last_id;
};

static int hf_errno(void)
{
	return errno ? errno : EIO;
}

int hf_close(struct hf_device *device)
{
	if (device->pd)
		ibv_dealloc_pd(device->pd);
	if (device->context)
		ibv_close_device(device->context);
	free(device);
	return 0;
}

/* The devices found ahead; never freed, so that what was found stays. */
static struct ibv_device **hf_devices;

void hf_look_around(void)
{
	if (!hf_devices)
		hf_devices = ibv_get_device_list(NULL);
}

static struct ibv_device *hf_find(const char *name)
{
	struct ibv_device **at;

	for (at = hf_devices; at && *at; at++)
		if (!strcmp(ibv_get_device_name(*at), name))
			return *at;
	return NULL;
}

int hf_open(const char *name, struct hf_device **out)
{
	struct ibv_device *found = hf_find(name);
	struct hf_device *device;
	int err;

	if (!found) {
		/* It may have come since. */
		hf_devices = NULL;
		hf_look_around();
		if (!hf_devices)
			return hf_errno();
		found = hf_find(name);
	}
	if (!found)
		return ENODEV;
	device = calloc(1, sizeof(*device));
	if (!device)
		return ENOMEM;
	device->context = ibv_open_device(found);
	err = device->context ? 0 : hf_errno();
	if (!err) {
		device->pd = ibv_alloc_pd(device->context);
		if (!device->pd)
			err = hf_errno();
	}
	if (err) {
		hf_close(device);
		return err;
	}
	*out = device;
	return 0;
}

/* Returns the number, not an errno. */
int hf_cmd_fd(struct hf_device *device)
{
	return device->context->cmd_fd;
}

int hf_query_gid(struct hf_device *device, int index, uint8_t raw[16])
{
	union ibv_gid gid;

	if (ibv_query_gid(device->context, HF_PORT, index, &gid))
		return hf_errno();
	memcpy(raw, gid.raw, sizeof(gid.raw));
	return 0;
}

int hf_reg_mr(struct hf_device *device, void *address, size_t length, int access, struct ibv_mr **out,
	      uint32_t *lkey, uint32_t *rkey)
{
	/* A function, because the macro of the same name wants a constant access mask to choose. */
	struct ibv_mr *mr = ibv_reg_mr(device->pd, address, length, access);

	if (!mr)
		return hf_errno();
	*out = mr;
	*lkey = mr->lkey;
	*rkey = mr->rkey;
	return 0;
}

int hf_dereg_mr(struct ibv_mr *mr)
{
	return ibv_dereg_mr(mr);
}

int hf_destroy_qp(struct hf_pair *pair)
{
	int err = pair->qp ? ibv_destroy_qp(pair->qp) : 0;

	if (pair->cq)
		ibv_destroy_cq(pair->cq);
	free(pair);
	return err;
}

int hf_create_qp(struct hf_device *device, struct hf_pair **out, uint32_t *number)
{
	struct ibv_qp_init_attr init = {
		.cap = { .max_send_wr = 4, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = IBV_QPT_RC,
	};
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = HF_PORT,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
	};
	struct hf_pair *pair = calloc(1, sizeof(*pair));
	int err = 0;

	if (!pair)
		return ENOMEM;
	pair->cq = ibv_create_cq(device->context, HF_CQ_DEPTH, NULL, NULL, 0);
	if (!pair->cq)
		err = hf_errno();
	if (!err) {
		init.send_cq = pair->cq;
		init.recv_cq = pair->cq;
		pair->qp = ibv_create_qp(device->pd, &init);
		if (!pair->qp)
			err = hf_errno();
	}
	if (!err)
		err = ibv_modify_qp(pair->qp, &attr,
				    IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
	if (err) {
		hf_destroy_qp(pair);
		return err;
	}
	*out = pair;
	*number = pair->qp->qp_num;
	return 0;
}

/* INIT -> RTR -> RTS. A lost peer shows after about (1 + retries) * 4.096 us * 2^timeout = 1.6 s. */
int hf_connect_qp(struct hf_pair *pair, int gid_index, const uint8_t gid[16], uint32_t number, uint32_t their_psn,
		  uint32_t our_psn)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_4096,
		.dest_qp_num = number,
		.rq_psn = their_psn,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
		.ah_attr = {
			.is_global = 1,
			.port_num = HF_PORT,
			.grh = { .sgid_index = (uint8_t)gid_index, .hop_limit = 64 },
		},
	};
	int err;

	memcpy(attr.ah_attr.grh.dgid.raw, gid, 16);
	err = ibv_modify_qp(pair->qp, &attr,
			    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				    IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
	if (err)
		return err;
	memset(&attr, 0, sizeof(attr));
	attr.qp_state = IBV_QPS_RTS;
	attr.timeout = 16;
	attr.retry_cnt = 5;
	attr.rnr_retry = 5;
	attr.sq_psn = our_psn;
	attr.max_rd_atomic = 1;
	return ibv_modify_qp(pair->qp, &attr,
			     IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				     IBV_QP_MAX_QP_RD_ATOMIC);
}

/* Whether the device faults pages in when they are used. */
int hf_has_odp(struct hf_device *device, int *has)
{
	struct ibv_device_attr_ex attr;
	int err = ibv_query_device_ex(device->context, NULL, &attr);

	if (err)
		return err;
	*has = !!(attr.odp_caps.general_caps & IBV_ODP_SUPPORT);
	return 0;
}

/*
 * Waits for an event of the device that concerns this context, acknowledges it and gives its number. One
 * read(2) and a few words of memory: it may be interrupted by a handler that comes back here.
 */
int hf_async_event(struct hf_device *device, int *type)
{
	struct ibv_async_event event;

	if (ibv_get_async_event(device->context, &event))
		return hf_errno();
	*type = (int)event.event_type;
	ibv_ack_async_event(&event);
	return 0;
}

/*
 * How much of the time limit one look at the completion queue may use up, in milliseconds: looks are
 * HF_POLL_STEP_NS apart, unless the machine stood still.
 */
enum { HF_MOST_PER_LOOK_MS = 10 };

static int64_t hf_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for a request's completion: 0 with the ibv_wc_status, ETIMEDOUT when none came. */
static int hf_complete(struct hf_pair *pair, uint64_t id, int64_t timeout_ms, int *status)
{
	const struct timespec step = { .tv_nsec = HF_POLL_STEP_NS };
	int64_t last_ms = hf_now_ms();
	struct ibv_wc wc;

	for (;;) {
		int n = ibv_poll_cq(pair->cq, 1, &wc);

		if (n < 0)
			return EIO;
		if (n == 1 && wc.wr_id == id) {
			*status = (int)wc.status;
			return 0;
		}
		if (n == 0) {
			int64_t now_ms = hf_now_ms(), passed_ms = now_ms - last_ms;

			timeout_ms -= passed_ms < HF_MOST_PER_LOOK_MS ? passed_ms : HF_MOST_PER_LOOK_MS;
			last_ms = now_ms;
			if (timeout_ms <= 0)
				return ETIMEDOUT;
			nanosleep(&step, NULL);
		}
	}
}

/* Whether a queue pair's requests go to its peer: 0, ENOTCONN, or why that is not known. */
static int hf_connected(struct hf_pair *pair)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	int err = ibv_query_qp(pair->qp, &attr, IBV_QP_STATE, &init);

	return err ? err : attr.qp_state == IBV_QPS_RTS ? 0 : ENOTCONN;
}

/*
 * One SEND, RDMA WRITE or READ (HF_SEND and so on), then its completion. 0 with the ibv_wc_status in *status,
 * an errno when the request could not be posted or polled for, ETIMEDOUT when no completion came.
 *
 * Over iWARP a WRITE completes when its bytes were given to TCP. So a READ of no bytes follows it, which the
 * peer answers when it has placed them; a peer that refuses either ends the connection, and the READ is
 * flushed. What is posted on a connection that has ended already is never completed, siw_post_send().
 */
int hf_transfer(struct hf_pair *pair, int kind, void *local, uint32_t lkey,
		uint32_t length, uint64_t remote, uint32_t rkey, int64_t timeout_ms, int *status)
{
	static const enum ibv_wr_opcode opcodes[] = { IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ, IBV_WR_SEND };
	struct ibv_sge sge = { .addr = (uintptr_t)local, .length = length, .lkey = lkey };
	struct ibv_send_wr request = {
		.wr_id = ++pair->last_id,
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = opcodes[kind],
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = { .remote_addr = remote, .rkey = rkey },
	};
	struct ibv_sge nothing = { .addr = (uintptr_t)local, .length = 0, .lkey = lkey };
	struct ibv_send_wr placed = request;
	struct ibv_send_wr *bad = NULL;
	int err;

	if (pair->qp->context->device->transport_type == IBV_TRANSPORT_IWARP) {
		err = hf_connected(pair);
		if (err)
			return err;
		if (request.opcode == IBV_WR_RDMA_WRITE) {
			placed.wr_id = ++pair->last_id;
			placed.sg_list = &nothing;
			placed.opcode = IBV_WR_RDMA_READ;
			request.send_flags = 0;
			request.next = &placed;
		}
	}
	err = ibv_post_send(pair->qp, &request, &bad);
	return err ? err : hf_complete(pair, pair->last_id, timeout_ms, status);
}

/* One RECEIVE into a part of a region of ours, then its completion; otherwise as hf_transfer(). */
int hf_receive(struct hf_pair *pair, struct ibv_mr *mr, uint64_t offset, uint32_t length,
	       int64_t timeout_ms, int *status)
{
	struct ibv_sge sge = { .addr = (uintptr_t)mr->addr + offset, .length = length, .lkey = mr->lkey };
	struct ibv_recv_wr request = { .wr_id = ++pair->last_id, .sg_list = &sge, .num_sge = 1 };
	struct ibv_recv_wr *bad = NULL;
	int err;

	if (offset > mr->length || length > mr->length - offset)
		return EFAULT;
	err = ibv_post_recv(pair->qp, &request, &bad);
	return err ? err : hf_complete(pair, request.wr_id, timeout_ms, status);
}
