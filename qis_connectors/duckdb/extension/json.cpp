#include "json.hpp"

#include <cstdio>

#include <arrow/api.h>
#include <arrow/json/options.h>
#include <arrow/json/reader.h>

namespace qis {

std::string Quoted(const std::string &text) {
	std::string quoted = "\"";
	for (unsigned char letter : text) {
		if (letter == '"' || letter == '\\') {
			quoted += '\\';
			quoted += static_cast<char>(letter);
		} else if (letter < 0x20) {
			char escape[8];
			std::snprintf(escape, sizeof escape, "\\u%04x", letter);
			quoted += escape;
		} else {
			quoted += static_cast<char>(letter);
		}
	}
	return quoted + "\"";
}

static arrow::Result<std::shared_ptr<arrow::Scalar>> Field(const std::string &object, const std::string &name,
                                                           const std::shared_ptr<arrow::DataType> &type) {
	auto options = arrow::json::ParseOptions::Defaults();
	options.explicit_schema = arrow::schema({arrow::field(name, type)});
	options.unexpected_field_behavior = arrow::json::UnexpectedFieldBehavior::Ignore;
	ARROW_ASSIGN_OR_RAISE(auto parsed, arrow::json::ParseOne(options, arrow::Buffer::FromString(object)));
	if (parsed->num_rows() != 1 || parsed->column(0)->IsNull(0)) {
		return arrow::Status::Invalid("an answer without '", name, "'");
	}
	return parsed->column(0)->GetScalar(0);
}

arrow::Result<std::string> TextField(const std::string &object, const std::string &name) {
	ARROW_ASSIGN_OR_RAISE(auto value, Field(object, name, arrow::utf8()));
	return std::static_pointer_cast<arrow::StringScalar>(value)->value->ToString();
}

arrow::Result<int64_t> NumberField(const std::string &object, const std::string &name) {
	ARROW_ASSIGN_OR_RAISE(auto value, Field(object, name, arrow::int64()));
	return std::static_pointer_cast<arrow::Int64Scalar>(value)->value;
}

} // namespace qis
