import cn.jiguang.common.ClientConfig;
import cn.jiguang.common.TimeUnit;
import cn.jiguang.common.resp.APIRequestException;
import cn.jpush.api.report.ReportClient;
import cn.jpush.api.report.model.CheckMessagePayload;
import com.google.gson.Gson;
import java.util.concurrent.Callable;

/** Asks every question of JPush's report API with the vendor's client; prints a line of JSON, or of an error, for each. */
public class JPushReport {
    public static void main(String[] arguments) throws Exception {
        ClientConfig config = ClientConfig.getInstance();
        config.setReportHostName(arguments[0]);
        config.setMaxRetryTimes(0);
        ReportClient client = new ReportClient(arguments[2], arguments[1], null, config);
        String day = arguments[3];
        ask("received", () -> client.getReceiveds("1613113584,1229760629"));
        ask("received/detail", () -> client.getReceivedsDetail("1613113584"));
        ask("messages", () -> client.getMessages("269978303"));
        ask("messages/detail", () -> client.getMessagesDetail("269978303"));
        CheckMessagePayload today = CheckMessagePayload.newBuilder()
            .setMsgId(327640176L).addRegistrationIds("a", "b").build();
        ask("status", () -> client.getMessagesStatus(today));
        CheckMessagePayload dated = CheckMessagePayload.newBuilder()
            .setMsgId(327640176L).addRegistrationIds("a").setDate(day).build();
        ask("status of a day", () -> client.getMessagesStatus(dated));
        ask("users", () -> client.getUsers(TimeUnit.DAY, day, 2));
        ask("users of 2014", () -> client.getUsers(TimeUnit.MONTH, "2014-06", 1));
        ReportClient stranger = new ReportClient("000000000000000000000000", arguments[1], null, config);
        ask("wrong secret", () -> stranger.getReceiveds("1613113584"));
    }

    private static void ask(String name, Callable<Object> question) throws Exception {
        String answer;
        try {
            answer = new Gson().toJson(question.call());
        } catch (APIRequestException refused) {
            answer = "{\"status\":" + refused.getStatus() + ",\"code\":" + refused.getErrorCode() + "}";
        }
        System.out.println(name + "\t" + answer);
    }
}
