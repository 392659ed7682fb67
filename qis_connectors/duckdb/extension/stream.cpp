#include "stream.hpp"

#include <chrono>

#include <arrow/api.h>

namespace qis {

using arrow::Result;
using arrow::Status;

// So many batches wait at most; the router sends 16,384 packets in one.
static constexpr size_t kAhead = 3;

// Shared with the thread, which may outlive the stream where the router never answers.
struct Stream::State {
	std::shared_ptr<Router> router;
	arrow::flight::Ticket ticket;
	std::shared_ptr<arrow::Schema> schema;

	std::mutex mutex;
	std::condition_variable changed;
	std::deque<std::shared_ptr<arrow::RecordBatch>> ready;
	std::unique_ptr<arrow::flight::FlightStreamReader> reader;
	Status status;
	bool is_finished = false;
	bool is_left = false;

	Status ReadAll();
	Status Open();
	// False where nobody wants more.
	bool Hand(std::shared_ptr<arrow::RecordBatch> batch);
};

Status Stream::State::Open() {
	ARROW_ASSIGN_OR_RAISE(auto opened, router->Read(ticket));
	std::lock_guard<std::mutex> lock(mutex);
	reader = std::move(opened);
	return is_left ? Status::Cancelled("nobody waits any more") : Status::OK();
}

bool Stream::State::Hand(std::shared_ptr<arrow::RecordBatch> batch) {
	std::unique_lock<std::mutex> lock(mutex);
	changed.wait(lock, [&] { return is_left || ready.size() < kAhead; });
	if (!is_left) {
		ready.push_back(std::move(batch));
		changed.notify_all();
	}
	return !is_left;
}

Status Stream::State::ReadAll() {
	ARROW_RETURN_NOT_OK(Open());
	ARROW_ASSIGN_OR_RAISE(auto sent, reader->GetSchema());
	if (!sent->Equals(*schema, false)) {
		return Status::Invalid("router ", router->url(), " sends other columns than it has described");
	}
	while (true) {
		auto chunk = reader->Next();
		if (!chunk.ok()) {
			return router->OneLine(chunk.status());
		}
		if (!chunk->data) {
			return chunk->app_metadata ? Status::Invalid("router ", router->url(), " sends no packets") : Status::OK();
		}
		// Whoever sends, offsets that point elsewhere must not become addresses in this process.
		auto valid = chunk->data->ValidateFull();
		if (!valid.ok()) {
			return Status::Invalid("router ", router->url(), " sends a broken batch: ", valid.message());
		}
		if (!Hand(std::move(chunk->data))) {
			return Status::OK();
		}
	}
}

Stream::Stream(std::shared_ptr<Router> router, const arrow::flight::Ticket &ticket,
               std::shared_ptr<arrow::Schema> schema)
    : state_(std::make_shared<State>()) {
	state_->router = std::move(router);
	state_->ticket = ticket;
	state_->schema = std::move(schema);
	thread_ = std::thread([state = state_] {
		auto status = state->ReadAll();
		std::lock_guard<std::mutex> lock(state->mutex);
		state->status = status;
		state->is_finished = true;
		if (state->is_left && state->reader) {
			state->reader->Cancel();
		}
		state->changed.notify_all();
	});
}

Stream::~Stream() {
	std::unique_lock<std::mutex> lock(state_->mutex);
	state_->is_left = true;
	state_->changed.notify_all();
	// A call that has not begun to answer cannot be cancelled: its thread is left to find out that nobody waits.
	bool may_wait = state_->is_finished || state_->reader;
	if (state_->reader && !state_->is_finished) {
		state_->reader->Cancel();
	}
	lock.unlock();
	may_wait ? thread_.join() : thread_.detach();
}

Result<std::shared_ptr<arrow::RecordBatch>> Stream::Next() {
	std::unique_lock<std::mutex> lock(state_->mutex);
	auto timeout = std::chrono::duration<double>(state_->router->settings().timeout);
	bool has_news = state_->changed.wait_for(lock, timeout,
	                                         [&] { return state_->is_finished || !state_->ready.empty(); });
	if (!has_news) {
		return Status::IOError("router ", state_->router->url(), " has sent nothing for ",
		                       state_->router->Patience());
	}
	if (state_->ready.empty()) {
		ARROW_RETURN_NOT_OK(state_->status);
		return nullptr;
	}
	auto batch = std::move(state_->ready.front());
	state_->ready.pop_front();
	state_->changed.notify_all();
	return batch;
}

} // namespace qis
