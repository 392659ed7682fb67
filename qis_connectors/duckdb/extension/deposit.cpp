#include "deposit.hpp"

#include <arrow/api.h>
#include <arrow/compute/cast.h>
#include <arrow/compute/initialize.h>

#include "json.hpp"

namespace qis {

using arrow::Result;
using arrow::Status;

// Rows of one batch on the wire, and of one call with a timeout of its own.
static constexpr int64_t kBatchRows = 32'768;
// A commit stores everything that is staged: the more, the longer.
static constexpr double kCommitSeconds = 300;
static constexpr double kAbortSeconds = 5;

const std::shared_ptr<arrow::Schema> &PacketSchema() {
	static const auto schema = arrow::schema({
	    arrow::field("node_id", arrow::utf8()),
	    arrow::field("timestamp_utc", arrow::int64()),
	    arrow::field("domain", arrow::utf8()),
	    arrow::field("problem_type", arrow::utf8()),
	    arrow::field("model_architecture", arrow::utf8()),
	    arrow::field("training_phase", arrow::utf8()),
	    arrow::field("metric_name", arrow::utf8()),
	    arrow::field("metric_delta", arrow::float32()),
	    arrow::field("metric_value", arrow::float32()),
	    arrow::field("confidence", arrow::float32()),
	    arrow::field("intervention_type", arrow::utf8()),
	    arrow::field("intervention_params", arrow::utf8()),
	    arrow::field("outcome_decile", arrow::int8()),
	    arrow::field("sample_count", arrow::int32()),
	    arrow::field("raw_data_hash", arrow::utf8()),
	    arrow::field("packet_id", arrow::utf8()),
	    arrow::field("metric_stderr", arrow::float32()),
	    arrow::field("context", arrow::utf8()),
	    arrow::field("likelihood", arrow::list(arrow::float32())),
	    arrow::field("sequence", arrow::int64()),
	    arrow::field("signature", arrow::binary()),
	    arrow::field("key_id", arrow::utf8()),
	});
	return schema;
}

static std::string Named(const std::string &transaction) {
	return "{\"v\": 1, \"transaction\": " + Quoted(transaction) + "}";
}

Result<std::unique_ptr<Deposit>> Deposit::Begin(std::shared_ptr<Router> router) {
	ARROW_RETURN_NOT_OK(arrow::compute::Initialize());
	ARROW_ASSIGN_OR_RAISE(auto answer, router->Act("begin", "{\"v\": 1}", router->settings().timeout));
	auto deposit = std::make_unique<Deposit>();
	ARROW_ASSIGN_OR_RAISE(deposit->transaction_, TextField(answer, "transaction"));
	deposit->router_ = std::move(router);
	return deposit;
}

Deposit::~Deposit() {
	if (router_ && !is_committed_) {
		// What went wrong is told already, and the router aborts by itself what is idle.
		static_cast<void>(router_->Act("abort", Named(transaction_), kAbortSeconds));
	}
}

// Whether a cast keeps the meaning: a TIMESTAMP is a number too, but of microseconds.
static bool MayCast(const arrow::DataType &from, const arrow::DataType &to) {
	if (from.Equals(to)) {
		return true;
	}
	if (to.id() == arrow::Type::LIST) {
		return from.id() == arrow::Type::LIST && MayCast(*from.field(0)->type(), *to.field(0)->type());
	}
	bool is_whole = arrow::is_integer(from.id()) || arrow::is_decimal(from.id());
	return (arrow::is_integer(to.id()) && is_whole) ||
	       (arrow::is_floating(to.id()) && (is_whole || arrow::is_floating(from.id())));
}

// As the packet's types: DuckDB's literals are wider.
static Result<std::shared_ptr<arrow::RecordBatch>> Cast(const arrow::RecordBatch &batch) {
	std::vector<std::shared_ptr<arrow::Array>> columns;
	std::vector<std::shared_ptr<arrow::Field>> fields;
	for (int at = 0; at < batch.num_columns(); at++) {
		auto field = PacketSchema()->field(at);
		fields.push_back(field);
		if (batch.column(at)->null_count() == batch.num_rows()) { // a bare NULL is an INTEGER for some DuckDBs
			ARROW_ASSIGN_OR_RAISE(auto nulls, arrow::MakeArrayOfNull(field->type(), batch.num_rows()));
			columns.push_back(std::move(nulls));
			continue;
		}
		if (!MayCast(*batch.column(at)->type(), *field->type())) {
			return Status::Invalid("field '", field->name(), "', column ", at + 1, " of the query, is ",
			                       batch.column(at)->type()->ToString(), " where a packet has ",
			                       field->type()->ToString());
		}
		auto column = arrow::compute::Cast(*batch.column(at), field->type());
		if (!column.ok()) {
			return Status::Invalid("field '", field->name(), "': ", column.status().message());
		}
		columns.push_back(*column);
	}
	return arrow::RecordBatch::Make(arrow::schema(fields), batch.num_rows(), columns);
}

Status Deposit::Add(std::shared_ptr<arrow::RecordBatch> batch) {
	waiting_rows_ += batch->num_rows();
	waiting_.push_back(std::move(batch));
	return waiting_rows_ >= kBatchRows ? Send() : Status::OK();
}

// One acknowledgement of one batch: how many packets are on the disk.
static Result<int64_t> Acknowledged(arrow::flight::FlightMetadataReader &acks) {
	std::shared_ptr<arrow::Buffer> ack;
	ARROW_RETURN_NOT_OK(acks.ReadMetadata(&ack));
	if (!ack) {
		return 0; // the stream has ended: closing it says why
	}
	auto text = ack->ToString();
	auto refusal = TextField(text, "error");
	return refusal.ok() ? Status::Invalid(*refusal) : NumberField(text, "staged");
}

Status Deposit::Send() {
	if (waiting_.empty()) {
		return Status::OK();
	}
	ARROW_ASSIGN_OR_RAISE(auto whole, arrow::ConcatenateRecordBatches(waiting_));
	waiting_.clear();
	waiting_rows_ = 0;
	ARROW_ASSIGN_OR_RAISE(auto packets, Cast(*whole));
	ARROW_ASSIGN_OR_RAISE(auto streams, router_->Put(Named(transaction_), packets->schema()));
	auto told = [&](const Status &status) {
		auto line = router_->OneLine(status);
		return line.ok() || !rows_ ? line : line.WithMessage(line.message(), " (rows counted from row ", rows_, ")");
	};
	auto written = streams.writer->WriteRecordBatch(*packets);
	auto done = streams.writer->DoneWriting();
	auto acknowledged = Acknowledged(*streams.reader);
	auto closed = streams.writer->Close();
	ARROW_RETURN_NOT_OK(told(closed));
	ARROW_RETURN_NOT_OK(told(acknowledged.status()));
	ARROW_RETURN_NOT_OK(told(written));
	ARROW_RETURN_NOT_OK(told(done));
	if (*acknowledged != packets->num_rows()) {
		return Status::IOError("router ", router_->url(), " did not acknowledge every packet; nothing is stored");
	}
	rows_ += packets->num_rows();
	return Status::OK();
}

Status Deposit::Commit() {
	ARROW_RETURN_NOT_OK(Send());
	auto answer = router_->Act("commit", Named(transaction_), kCommitSeconds);
	if (answer.status().IsIOError()) {
		// Asked again, a commit that stands gives the same receipt.
		answer = router_->Act("commit", Named(transaction_), kCommitSeconds);
	}
	if (!answer.ok()) {
		return answer.status().WithMessage(answer.status().message(),
		                                   "; all packets are stored or none, and sending them again is harmless");
	}
	is_committed_ = true;
	auto receipt = *answer;
	ARROW_ASSIGN_OR_RAISE(auto stored, NumberField(receipt, "stored"));
	ARROW_ASSIGN_OR_RAISE(auto duplicates, NumberField(receipt, "duplicates"));
	if (stored + duplicates != rows_) {
		return Status::IOError("router ", router_->url(), " has acknowledged ", stored + duplicates, " of ", rows_,
		                       " packets; send them again");
	}
	return Status::OK();
}

} // namespace qis
