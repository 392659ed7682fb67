// One endpoint's packets, read ahead by a thread of its own so that a router that stalls can be left.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "router.hpp"

namespace qis {

class Stream {
public:
	// Begins to read at once. Every batch must have exactly this schema's names and types.
	Stream(std::shared_ptr<Router> router, const arrow::flight::Ticket &ticket, std::shared_ptr<arrow::Schema> schema);
	// Ends the call, wherever it is.
	~Stream();

	// The next batch; nullptr at the end; an error where the router fails, or says nothing for its timeout.
	arrow::Result<std::shared_ptr<arrow::RecordBatch>> Next();

private:
	struct State;

	std::shared_ptr<State> state_;
	std::thread thread_;
};

} // namespace qis
